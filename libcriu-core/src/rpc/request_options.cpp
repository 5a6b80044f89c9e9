// SPDX-License-Identifier: LGPL-2.1-only
#include "rpc/request_options.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <functional>

#include "base/error.hpp"
#include "options_table.hpp"

namespace criu::rpc {

using base::check;
using base::Error;
using images::criu_opts;

namespace {

// ---- fields that are options by another name
// --------------------------------------------------------------------------

struct Flag {
  const char* name;
  bool (criu_opts::*has)() const;
  bool (criu_opts::*get)() const;
  bool on_only = false;  // false is the same as nothing
};

#define FLAG(name, field, ...) \
  { name, &criu_opts::has_##field, &criu_opts::field __VA_OPT__(, ) __VA_ARGS__ }
constexpr Flag flags[] = {
    FLAG("tcp-established", tcp_established),
    FLAG("skip-in-flight", tcp_skip_in_flight),
    FLAG("tcp-close", tcp_close),
    FLAG("weak-sysctls", weak_sysctls),
    FLAG("evasive-devices", evasive_devices),
    FLAG("shell-job", shell_job),
    FLAG("skip-file-rwx-check", skip_file_rwx_check),
    FLAG("file-locks", file_locks),
    FLAG("track-mem", track_mem),
    FLAG("link-remap", link_remap),
    FLAG("auto-dedup", auto_dedup),
    FLAG("force-irmap", force_irmap),
    FLAG("lazy-pages", lazy_pages),
    FLAG("display-stats", display_stats),
    FLAG("unprivileged", unprivileged),
    FLAG("enable-external-sharing", ext_sharing),
    FLAG("enable-external-masters", ext_masters),
    FLAG("restore-sibling", rst_sibling),
    FLAG("leave-running", leave_running, true),
    FLAG("leave-stopped", leave_stopped, true),  // after the other, and so stronger
    FLAG("tls", tls, true),
    FLAG("tls-no-cn-verify", tls_no_cn_verify, true),
    FLAG("mntns-compat-mode", mntns_compat_mode, true),
};
#undef FLAG

struct Text {
  const char* name;
  bool (criu_opts::*has)() const;
  const std::string& (criu_opts::*get)() const;
};

#define TEXT(name, field) \
  { name, &criu_opts::has_##field, &criu_opts::field }
constexpr Text texts[] = {
    TEXT("root", root),
    TEXT("cgroup-props", cgroup_props),
    TEXT("cgroup-props-file", cgroup_props_file),
    TEXT("cgroup-yard", cgroup_yard),
    TEXT("freeze-cgroup", freeze_cgroup),
    TEXT("lsm-profile", lsm_profile),
    TEXT("lsm-mount-context", lsm_mount_context),
    TEXT("tls-cacert", tls_cacert),
    TEXT("tls-cacrl", tls_cacrl),
    TEXT("tls-cert", tls_cert),
    TEXT("tls-key", tls_key),
};
#undef TEXT

using Texts = google::protobuf::RepeatedPtrField<std::string>;
struct List {
  const char* name;
  const Texts& (criu_opts::*get)() const;
};

constexpr List lists[] = {
    {"external", &criu_opts::external},
    {"enable-fs", &criu_opts::enable_fs},
    {"skip-mnt", &criu_opts::skip_mnt},
    {"cgroup-dump-controller", &criu_opts::cgroup_dump_controller},
};

const char* name_of(images::criu_cg_mode mode) {
  switch (mode) {
    case images::IGNORE:
      return "ignore";
    case images::CG_NONE:
      return "none";
    case images::PROPS:
      return "props";
    case images::FULL:
      return "full";
    case images::STRICT:
      return "strict";
    default:
      return "soft";
  }
}

const char* name_of(images::criu_network_lock_method method) {
  return method == images::NFTABLES ? "nftables" : method == images::SKIP ? "skip" : "iptables";
}

// ---- the rest
// -----------------------------------------------------------------------------------------------------------

class Reader {
 public:
  Reader(const Options& base, const criu_opts& request, const Origin& origin)
      : base_(base), request_(request), origin_(origin), result_{base, {}} {}

  RequestOptions read(Command command) {
    const bool service_only = !origin_.inherited;
    if (service_only && (request_.has_rst_sibling() || request_.inherit_fd_size() != 0 || request_.ps().has_fd())) {
      throw Error("invalid request", "rst_sibling, inherit_fd and ps.fd", 0,
                  "they need a worker that the client has started itself (swrk)");
    }
    options().tree = request_.has_pid() ? request_.pid() : origin_.client;
    options().detach = command == restore_command;
    options().orphan_terminals = request_.orphan_pts_master();
    read_same_names();
    read_mounts_and_links();
    read_numbers();
    read_cgroups();
    read_transfer();
    read_descriptors();
    read_places();
    return std::move(result_);
  }

 private:
  Options& options() { return result_.options; }
  void set(const char* name, const std::string& value) { set_option(options(), name, value.c_str()); }

  void read_same_names() {
    for (const auto& flag : flags) {
      if ((request_.*flag.has)() && ((request_.*flag.get)() || !flag.on_only)) {
        set_flag(options(), flag.name, (request_.*flag.get)());
      }
    }
    for (const auto& text : texts) {
      if ((request_.*text.has)()) {
        set(text.name, (request_.*text.get)());
      }
    }
    for (const auto& list : lists) {
      for (const auto& value : (request_.*list.get)()) {
        set(list.name, value);
      }
    }
  }

  void read_mounts_and_links() {
    if (request_.has_auto_ext_mnt()) {
      options().auto_mounts = request_.auto_ext_mnt();
    }
    for (const auto& mount : request_.ext_mnt()) {
      set("external", fmt::format("mnt[{}]:{}", mount.key(), mount.val()));
    }
    for (const auto& pair : request_.veths()) {
      set("external", fmt::format("veth[{}]:{}", pair.if_in(), pair.if_out()));
    }
    for (const auto& join : request_.join_ns()) {
      set("join-ns", join.ns() + ":" + join.ns_file() + (join.has_extra_opt() ? "," + join.extra_opt() : ""));
    }
    if (request_.has_empty_ns() && request_.empty_ns() != 0) {
      if (request_.empty_ns() != CLONE_NEWNET) {
        throw Error("invalid request", "empty_ns", 0, "only the network namespace can be empty");
      }
      set("empty-ns", "net");
    }
    if (request_.has_ext_unix_sk()) {
      options().ext_unix_any = request_.ext_unix_sk() && request_.unix_sk_ino_size() == 0;
      for (const auto& socket : request_.unix_sk_ino()) {
        if (request_.ext_unix_sk()) {
          options().ext_unix_sk.insert(socket.inode());
        }
      }
    }
  }

  void read_numbers() {
    if (request_.has_timeout()) {
      set("timeout", std::to_string(request_.timeout()));
    }
    if (request_.has_ghost_limit()) {
      set("ghost-limit", std::to_string(request_.ghost_limit()));
    }
    if (request_.has_network_lock()) {
      set("network-lock", name_of(request_.network_lock()));
    }
    if (request_.has_pre_dump_mode()) {
      set("pre-dump-mode", request_.pre_dump_mode() == images::VM_READ ? "read" : "splice");
    }
    if (request_.has_cpu_cap()) {
      set("cpu-cap", capabilities_of(request_.cpu_cap()));
    }
  }

  // What is in the image counts whenever anything does.
  static std::string capabilities_of(std::uint32_t bits) {
    constexpr const char* names[] = {"fpu", "cpu", "ins"};
    std::string text = "image";
    for (std::size_t i = 0; i < std::size(names); ++i) {
      if ((bits >> i & 1) != 0) {
        text += std::string(",") + names[i];
      }
    }
    return text;
  }

  void read_cgroups() {
    if (request_.has_manage_cgroups_mode()) {
      set("manage-cgroups", name_of(request_.manage_cgroups_mode()));
    } else if (request_.has_manage_cgroups()) {
      set("manage-cgroups", request_.manage_cgroups() ? "soft" : "ignore");
    }
    for (const auto& root : request_.cg_root()) {
      set("cgroup-root", (root.has_ctrl() ? root.ctrl() + ":" : "") + root.path());
    }
  }

  void read_transfer() {
    if (!request_.has_ps() || request_.lazy_pages()) {
      return;
    }
    set_flag(options(), "page-server", true);
  }

  base::Fd open_of_client(int fd, int how, const char* what) const {
    const auto path = fmt::format("/proc/{}/fd/{}", origin_.client, fd);
    return base::Fd(check(::open(path.c_str(), how | O_CLOEXEC), "open the client's", fmt::format("{} {}", what, fd),
                          path + " has to be there for as long as the request takes"));
  }

  void read_descriptors() {
    for (const auto& given : request_.inherit_fd()) {
      set("inherit-fd", fmt::format("fd[{}]:{}", given.fd(), given.key()));
    }
    if (request_.has_status_fd()) {
      result_.descriptors.push_back(open_of_client(request_.status_fd(), O_WRONLY, "status_fd"));
      options().status_fd = result_.descriptors.back().get();
    }
  }

  // By its name where that leads there; else by the descriptor, which stays with us.
  std::string path_of(base::Fd directory) {
    const auto own = fmt::format("/proc/{}/fd/{}", ::getpid(), directory.get());
    char text[PATH_MAX];
    const auto size = ::readlink(own.c_str(), text, sizeof text);
    struct stat here {
    }, there{};
    std::string path(text, static_cast<std::size_t>(size > 0 ? size : 0));
    if (path.empty() || ::stat(path.c_str(), &there) != 0 || ::fstat(directory.get(), &here) != 0 ||
        here.st_dev != there.st_dev || here.st_ino != there.st_ino) {
      path = own;
    }
    result_.descriptors.push_back(std::move(directory));
    return path;
  }

  std::string directory_of_client(int fd, const char* what) {
    return path_of(open_of_client(fd, O_RDONLY | O_DIRECTORY, what));
  }

  // What the configuration file says counts more than the request, except for the level of the log.
  void read_places() {
    auto& own = options();
    own.images_dir.clear();
    own.work_dir.clear();
    own.log_file.clear();
    if (request_.has_config_file()) {
      load_config(own, request_.config_file());
    }
    for (const auto& path : request_.irmap_scan_paths()) {
      set("irmap-scan-path", path);
    }
    if (request_.has_parent_img()) {
      set("prev-images-dir", request_.parent_img());
    }
    own.verbosity = request_.log_level();
    if (own.images_dir.empty() && request_.images_dir_fd() >= 0) {
      own.images_dir = directory_of_client(request_.images_dir_fd(), "images_dir_fd");
    } else if (own.images_dir.empty()) {
      own.images_dir = request_.images_dir();
    }
    if (own.work_dir.empty() && request_.has_work_dir_fd() && request_.work_dir_fd() >= 0) {
      own.work_dir = directory_of_client(request_.work_dir_fd(), "work_dir_fd");
    } else if (own.work_dir.empty()) {
      own.work_dir = base_.work_dir.empty() ? own.images_dir : base_.work_dir;
    }
    if (own.log_file.empty()) {
      own.log_file = log_file();
    }
  }

  // "": stderr.
  std::string log_file() const {
    if (request_.has_log_file()) {
      if (request_.log_file().find('/') != std::string::npos) {
        throw Error("No subdirs are allowed in log_file name", request_.log_file(), 0);
      }
      return request_.log_file();
    }
    return request_.log_to_stderr() ? "" : base_.log_file.empty() ? "criu.log" : base_.log_file;
  }

  const Options& base_;
  const criu_opts& request_;
  const Origin& origin_;
  RequestOptions result_;
};

}  // namespace

RequestOptions read_options(const Options& base, const criu_opts& request, const Origin& origin, Command command) {
  return Reader(base, request, origin).read(command);
}

}  // namespace criu::rpc
