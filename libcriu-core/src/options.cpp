// SPDX-License-Identifier: LGPL-2.1-only
// The table of options, and what each does to the set. A row without an action belongs to a feature that does not exist
// yet: it is remembered, and refused by name when a command starts that it would change.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <iterator>

#include "log.hpp"
#include "options_table.hpp"

namespace criu {

namespace {

constexpr unsigned dumps = dump_command | pre_dump_command;
constexpr unsigned both = dump_command | restore_command;
constexpr unsigned servers = page_server_command | lazy_pages_command | service_command;
constexpr unsigned pages = dumps | restore_command | page_server_command | lazy_pages_command;

[[noreturn]] void invalid(const Given& given) {
  throw base::Error("invalid argument for " + std::string(given.spelled), given.value, 0);
}

// A whole number, and nothing behind it.
template <typename Number>
Number number(const Given& given, Number lowest) {
  const std::string_view text = given.value;
  Number result{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), result);
  if (error != std::errc{} || end != text.data() + text.size() || result < lowest) {
    invalid(given);
  }
  return result;
}

template <auto Member>
void flag(Options& options, const Given& given) {
  options.*Member = given.on;
}

template <auto Member>
void text(Options& options, const Given& given) {
  options.*Member = given.value;
}

template <auto Member>
void append(Options& options, const Given& given) {
  (options.*Member).emplace_back(given.value);
}

template <FinalState State>
void leave(Options& options, const Given&) {
  options.final_state = State;
}

// For what only another reader or another command cares about.
void nothing(Options&, const Given&) {}

void not_from_here(Options&, const Given& given) {
  throw UsageError("not an option to set", std::string(given.spelled), 0);
}

void set_tree(Options& options, const Given& given) { options.tree = number<pid_t>(given, 1); }
void set_timeout(Options& options, const Given& given) { options.timeout = number<unsigned>(given, 0); }
void set_status_fd(Options& options, const Given& given) { options.status_fd = number<int>(given, 0); }
void check_descriptor(Options&, const Given& given) { number<int>(given, 0); }

void check_port(Options&, const Given& given) {
  if (number<unsigned>(given, 1) > 65535) {
    invalid(given);
  }
}

void close_descriptor(Options&, const Given& given) {
  const int fd = number<int>(given, 0);
  if (::close(fd) != 0) {
    throw base::Error("close", "descriptor " + std::to_string(fd), errno);
  }
}

// "2M": what stands before the letter, in its unit; a K wins over an M, that over a G.
void set_ghost_limit(Options& options, const Given& given) {
  const std::string_view value = given.value;
  std::uint64_t size = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), size);
  if (error != std::errc{}) {
    invalid(given);
  }
  const std::string_view unit(end, value.data() + value.size());
  const unsigned shift = unit.find('K') != unit.npos   ? 10
                         : unit.find('M') != unit.npos ? 20
                         : unit.find('G') != unit.npos ? 30
                                                       : 0;
  if (size > (UINT64_MAX >> shift)) {
    invalid(given);
  }
  options.ghost_limit = size << shift;
}

// Each "v" is one more; a number is the level itself. Other text is worth 0, as ever: `-verbosity=0` is in use.
void set_verbosity(Options& options, const Given& given) {
  if (given.value == nullptr) {
    ++options.verbosity;
    return;
  }
  const std::string_view value = given.value;
  if (!value.empty() && value.find_first_not_of('v') == value.npos) {
    options.verbosity += 1 + static_cast<int>(value.size());
  } else {
    options.verbosity = std::atoi(given.value);
  }
}

void set_file_validation(Options& options, const Given& given) {
  const std::string_view value = given.value;
  if (value == "filesize") {
    options.file_validation = FileValidation::size;
  } else if (value == "buildid") {
    options.file_validation = FileValidation::build_id;
  } else {
    throw UsageError("Unknown file validation method " + std::string(value), {}, 0, "it is filesize or buildid");
  }
}

// "mnt[]", "mnt[]:m", "mnt[]:s": of what is behind the colon only the first letter counts.
void find_mounts(Options& options, const Given& given) {
  const auto letters = std::string_view(given.value).substr(std::string_view("mnt[]").size());
  if (letters.starts_with(":m")) {
    options.external_masters = true;
  } else if (letters.starts_with(":s")) {
    options.external_sharing = true;
  } else if (!letters.empty()) {
    throw UsageError("invalid argument for " + std::string(given.spelled), given.value, 0,
                     "mnt[], mnt[]:m for external masters, or mnt[]:s for external sharing");
  }
  options.auto_mounts = true;
}

// Of the kinds of external resources only these are there yet.
void add_external(Options& options, const Given& given) {
  const std::string_view value = given.value;
  if (value.starts_with("mnt[]")) {
    find_mounts(options, given);
  } else if (value.starts_with("unix[") || value.starts_with("tty[") || value.starts_with("file[") ||
             value.starts_with("mnt[") || value.starts_with("net[") || value.starts_with("veth[") ||
             value.starts_with("macvlan[") || value.starts_with("netdev[")) {
    options.external.emplace(value);
  } else {
    options.not_yet.insert("external");
  }
}

// The older way to say --external mnt[KEY]:VALUE.
void add_mount_map(Options& options, const Given& given) {
  const std::string_view value = given.value;
  const auto colon = value.rfind(':');
  if (value == "auto") {
    options.auto_mounts = true;
  } else if (colon == std::string_view::npos) {
    throw UsageError(std::string(given.spelled) + " wants KEY:VALUE", given.value, 0);
  } else {
    options.external.insert("mnt[" + std::string(value.substr(0, colon)) + "]:" + std::string(value.substr(colon + 1)));
  }
}

void add_filesystems(Options& options, const Given& given) {
  std::string_view names = given.value;
  while (!names.empty()) {
    const auto comma = names.find(',');
    options.enable_fs.emplace(names.substr(0, comma));
    names.remove_prefix(comma == std::string_view::npos ? names.size() : comma + 1);
  }
}

void add_scan_path(Options& options, const Given& given) {
  if (given.value[0] != '/') {
    throw UsageError("the path of " + std::string(given.spelled) + " is not absolute", given.value, 0);
  }
  options.irmap_scan_paths.emplace_back(given.value);
}

void set_empty_ns(Options& options, const Given& given) {
  if (std::string_view(given.value) != "net") {
    throw base::Error("Unsupported empty namespace: " + std::string(given.value), {}, 0);
  }
  options.empty_net = true;
}

// "net:PID" or "net:FILE".
void add_join_ns(Options& options, const Given& given) {
  const std::string_view value = given.value;
  const auto kind = value.substr(0, value.find(':'));
  for (const std::string_view known : {"uts", "time", "ipc", "mnt", "user"}) {
    if (kind == known) {
      options.not_yet.insert("join-ns");
      return;
    }
  }
  if (kind == "pid") {
    throw base::Error("join-ns pid namespace not supported", {}, 0);
  }
  if (kind != "net" || kind.size() + 1 >= value.size()) {
    throw base::Error("invalid namespace type " + std::string(value), {}, 0, "it is net:PID or net:FILE");
  }
  const std::string where(value.substr(kind.size() + 1));
  const bool is_pid = where.find_first_not_of("0123456789") == where.npos;
  options.join_net = is_pid ? "/proc/" + where + "/ns/net" : where;
  struct stat ignored {};
  if (::stat(options.join_net.c_str(), &ignored) != 0) {
    throw is_pid && errno == ENOENT ? base::Error("Invalid join_ns pid: /proc/" + where + " not found", {}, 0)
                                    : base::Error("Can't access join-ns file " + options.join_net, {}, errno);
  }
}

// The older way to say --external veth[IN]:OUT.
void add_veth_pair(Options& options, const Given& given) {
  const std::string_view value = given.value;
  const auto equals = value.find('=');
  if (equals == value.npos) {
    throw UsageError(std::string(given.spelled) + " wants IN=OUT", given.value, 0);
  }
  options.external.insert("veth[" + std::string(value.substr(0, equals)) +
                          "]:" + std::string(value.substr(equals + 1)));
}

// "fd[7]:RES"; "debug[7]:TEXT" writes the text there.
void add_inherit_fd(Options& options, const Given& given) {
  const std::string_view value = given.value;
  const bool debug = value.starts_with("debug[");
  const auto open = value.find('['), close = value.find("]:");
  int fd = -1;
  if (!(debug || value.starts_with("fd[")) || close == value.npos || close + 2 == value.size() ||
      std::from_chars(value.data() + open + 1, value.data() + close, fd).ptr != value.data() + close || fd < 0) {
    throw base::Error("Invalid inherit fd argument: " + std::string(value), {}, 0, "it is fd[NUMBER]:RESOURCE");
  }
  struct stat ignored {};
  if (::fstat(fd, &ignored) != 0) {
    throw base::Error("Can't fstat inherit fd " + std::to_string(fd), {}, errno);
  }
  const auto resource = value.substr(close + 2);
  if (!debug) {
    options.inherit_fds.emplace_back(resource, fd);
  } else if (::write(fd, resource.data(), resource.size()) != static_cast<ssize_t>(resource.size())) {
    throw base::Error("write to", "descriptor " + std::to_string(fd), errno);
  }
}

// All of them, or a list of their numbers.
void set_ext_unix_sk(Options& options, const Given& given) {
  if (given.value == nullptr) {
    options.ext_unix_any = true;
    return;
  }
  std::string_view rest = given.value;
  while (!rest.empty()) {
    const auto word = std::string(rest.substr(0, rest.find(',')));
    options.ext_unix_sk.insert(number<std::uint32_t>({given.spelled, word.c_str(), true}, 1));
    rest.remove_prefix(std::min(rest.size(), word.size() + 1));
  }
}

void set_network_lock(Options& options, const Given& given) {
  const std::string_view value = given.value;
  if (value == "iptables") {
    options.network_lock = NetworkLockMethod::iptables;
  } else if (value == "nftables") {
    options.network_lock = NetworkLockMethod::nftables;
  } else if (value == "skip" || value == "none") {
    options.network_lock = NetworkLockMethod::skip;
  } else {
    throw base::Error("Invalid value for --network-lock: " + std::string(value), {}, 0);
  }
}

void set_manage_cgroups(Options& options, const Given& given) {
  constexpr std::pair<std::string_view, CgroupMode> modes[] = {
      {"ignore", CgroupMode::ignore}, {"none", CgroupMode::none}, {"props", CgroupMode::props},
      {"soft", CgroupMode::soft},     {"full", CgroupMode::full}, {"strict", CgroupMode::strict}};
  const std::string_view value = given.value != nullptr ? given.value : "soft";
  const auto mode = std::find_if(std::begin(modes), std::end(modes), [&](const auto& it) { return it.first == value; });
  if (mode == std::end(modes)) {
    throw UsageError("Unknown cgroups mode " + std::string(value), {}, 0,
                     "it is ignore, none, props, soft, full or strict");
  }
  options.manage_cgroups = mode->second;
}

// "[CTRL:]/PATH"
void add_cgroup_root(Options& options, const Given& given) {
  const std::string_view value = given.value;
  const auto colon = value.find(':');
  auto path = std::string(colon == value.npos ? value : value.substr(colon + 1));
  if (!path.starts_with('/')) {
    throw base::Error("invalid argument for " + std::string(given.spelled), std::string(value), 0,
                      "it is [CONTROLLER:]/PATH");
  }
  if (colon == value.npos) {
    options.cgroup_root = std::move(path);
  } else {
    options.cgroup_roots[std::string(value.substr(0, colon))] = std::move(path);
  }
}

void check_all(Options& options, const Given&) { options.check_extra = options.check_experimental = true; }

void refuse_ms(Options&, const Given&) {
  throw base::Error("--ms is deprecated; see \"Check options\" of criu --help", {}, 0);
}

void refuse_tls(Options&, const Given& given) {
  if (given.on) {
    throw base::Error("CRIU was built without TLS support", {}, 0);
  }
}

constexpr auto none = Takes::nothing;
constexpr auto value = Takes::value;
constexpr auto maybe = Takes::optional_value;

constexpr const char* general = "General";
constexpr const char* on_restore = "Restore";
constexpr const char* files = "Files, terminals, sockets";
constexpr const char* mounts = "Mounts";
constexpr const char* cgroups = "Control groups";
constexpr const char* memory = "Memory";
constexpr const char* transfer = "Page server, service";
constexpr const char* logging = "Logging";
constexpr const char* checking = "Check options";

// clang-format off
constexpr OptionInfo table[] = {
  {"tree", 't', value, false, dumps | check_command, "PID", general, "the root of the process tree", set_tree},
  {"leave-stopped", 's', none, false, dumps | restore_command, nullptr, general, "leave the tasks stopped", leave<FinalState::stopped>},
  {"leave-running", 'R', none, false, dump_command, nullptr, general, "let the tasks go on after the dump", leave<FinalState::running>},
  {"images-dir", 'D', value, false, every_command, "DIR", general, "where the images are (default: .)", text<&Options::images_dir>},
  {"work-dir", 'W', value, false, every_command, "DIR", general, "where logs, pid files, statistics go (default: the image directory)", text<&Options::work_dir>},
  {"prev-images-dir", 0, value, false, dumps, "DIR", general, "the checkpoint before this one, relative to the image directory", text<&Options::previous_images>},
  {"pidfile", 0, value, false, restore_command | servers, "FILE", general, "write the pid of the root task here; must not exist", text<&Options::pidfile>},
  {"libdir", 'L', value, false, dumps | restore_command, "DIR", general, "where plugins are (default: /usr/lib/criu)", text<&Options::libdir>},
  {"root", 'r', value, false, restore_command, "PATH", general, "the root of the restored mount namespace", text<&Options::root>},
  {"timeout", 0, value, false, dumps, "SECONDS", general, "how long freezing the tree may take (default: 10; 0: as long as it takes)", set_timeout},
  {"freeze-cgroup", 0, value, false, dumps, "PATH", general, "freeze the tree by its control group", text<&Options::freeze_cgroup>},
  {"external", 0, value, false, both, "RES", general, "a resource that is not the tree's own (so far: tty[RDEV:DEV], file[MNT:INODE], unix[INODE], mnt[POINT]:KEY, net[INODE]:NAME, at the restore mnt[KEY]:PATH, veth[LINK]:NAME[@BRIDGE], macvlan[LINK]:NAME, netdev[LINK]:NAME, and mnt[])", add_external},
  {"empty-ns", 0, value, false, both, "net", general, "make a network namespace without saving or restoring what is in it", set_empty_ns},
  {"action-script", 0, value, false, every_command, "PATH", general, "run this at every stage", append<&Options::action_scripts>},
  {"display-stats", 0, none, true, both, nullptr, general, "print statistics at the end", flag<&Options::display_stats>},
  {"unprivileged", 0, none, true, every_command, nullptr, general, "run without being root, with CAP_CHECKPOINT_RESTORE", flag<&Options::unprivileged>},
  {"deprecated", 0, none, true, every_command, nullptr, general, "allow what is deprecated", flag<&Options::deprecated>},
  {"close", 0, value, false, every_command, "FD", general, "close this descriptor at once", close_descriptor},
  {"stream", 0, none, true, both | pre_dump_command | cpuinfo_command, nullptr, general, "images go through criu-image-streamer", nullptr},
  {"allow-uprobes", 0, none, true, both, nullptr, general, "accept the mapping of uprobes", nullptr},
  {"cpu-cap", 0, maybe, false, both | cpuinfo_command, "CAPS", general, "which CPU capabilities must agree (only none so far)", nullptr, "none"},
  {"status-fd", 0, value, false, servers, "FD", general, "write a zero byte here and close it when ready", set_status_fd},
  {"config", 0, value, false, every_command, "FILE", general, "read options from here instead of the default files", nothing, nullptr, true},
  {"no-default-config", 0, none, false, every_command, nullptr, general, "read no default configuration files", nothing, nullptr, true},
  {"version", 'V', none, false, every_command, nullptr, general, "say the version", not_from_here, nullptr, true},
  {"help", 'h', none, false, every_command, nullptr, general, "this text", not_from_here, nullptr, true},

  {"restore-detached", 'd', none, true, restore_command, nullptr, on_restore, "leave when the tree runs", flag<&Options::detach>},
  {"restore-sibling", 'S', none, true, restore_command, nullptr, on_restore, "the root becomes a child of the caller (needs -d)", flag<&Options::sibling>},
  {"exec-cmd", 0, none, false, restore_command, nullptr, on_restore, "after the restore become CMD, the parent of the tree", flag<&Options::exec_after>},
  {"skip-file-rwx-check", 0, none, true, restore_command, nullptr, on_restore, "do not compare the mode of files with the dumped one", flag<&Options::skip_file_rwx_check>},
  {"affinity", 0, none, true, restore_command, nullptr, on_restore, "threads run on the processors they ran on, not on those of this program", flag<&Options::affinity>},
  {"weak-sysctls", 0, none, true, restore_command, nullptr, on_restore, "skip sysctls that this kernel has not got", flag<&Options::weak_sysctls>},
  {"pidns", 0, none, false, restore_command, nullptr, on_restore, "restore into a pid namespace of its own, where no pid is taken", not_from_here, nullptr, true},
  {"mntns-compat-mode", 0, none, true, restore_command, nullptr, on_restore, "restore mounts the old way", nullptr},
  {"inherit-fd", 0, value, false, restore_command, "fd[N]:RES", on_restore, "use an open descriptor for a resource: tty[RDEV:DEV], pipe:[INODE], socket:[INODE], file[MNT:INODE], /memfd:NAME, or a path without its first slash", add_inherit_fd},
  {"join-ns", 'J', value, false, restore_command, "NS:PID|FILE", on_restore, "restore into an existing namespace (so far: net)", add_join_ns},
  {"lsm-profile", 0, value, false, restore_command, "TYPE:NAME", on_restore, "security profile for the tree", nullptr},
  {"lsm-mount-context", 0, value, false, restore_command, "CTX", on_restore, "security context of mounts", nullptr},

  {"shell-job", 'j', none, true, both, nullptr, files, "the session leader is outside the tree", flag<&Options::shell_job>},
  {"link-remap", 0, none, true, both, nullptr, files, "give deleted files with other links a temporary name", flag<&Options::link_remap>},
  {"ghost-limit", 0, value, false, dump_command, "SIZE", files, "largest deleted file to save inside the images (default: 1M)", set_ghost_limit},
  {"ghost-fiemap", 0, none, true, dump_command, nullptr, files, "find holes of deleted files with FIEMAP (the default)", flag<&Options::ghost_fiemap>},
  {"file-validation", 0, value, false, both, "filesize|buildid", files, "how to know a mapped file again (default: buildid)", set_file_validation},
  {"evasive-devices", 0, none, true, both, nullptr, files, "any path to a device will do", flag<&Options::evasive_devices>},
  {"file-locks", 'l', none, true, both, nullptr, files, "save and restore file locks", flag<&Options::file_locks>},
  {"force-irmap", 0, none, true, dumps, nullptr, files, "keep the paths of watched files, found by scanning", flag<&Options::force_irmap>},
  {"irmap-scan-path", 0, value, false, dumps, "PATH", files, "where to scan for watched files, too", add_scan_path},
  {"ext-unix-sk", 'x', maybe, false, both, "INODE,…", files, "accept sockets whose peer is outside", set_ext_unix_sk},
  {"tcp-established", 0, none, true, both, nullptr, files, "save established TCP connections", flag<&Options::tcp_established>},
  {"skip-in-flight", 0, none, true, dump_command, nullptr, files, "leave out connections not accepted yet", flag<&Options::skip_in_flight>},
  {"tcp-close", 0, none, true, both, nullptr, files, "restore TCP connections closed", flag<&Options::tcp_close>},
  {"network-lock", 0, value, false, dump_command, "METHOD", files, "how connections are held meanwhile: nftables, iptables or skip (default: the first that is there)", set_network_lock},
  {"veth-pair", 0, value, false, restore_command, "IN=OUT", files, "the same as --external veth[IN]:OUT", add_veth_pair},

  {"ext-mount-map", 'M', value, false, both, "KEY:VAL|auto", mounts, "the same as --external mnt[KEY]:VAL, or mnt[]", add_mount_map},
  {"enable-external-sharing", 0, none, false, both, nullptr, mounts, "with auto: also mounts that share with the outside what is mounted on them", flag<&Options::external_sharing>},
  {"enable-external-masters", 0, none, false, both, nullptr, mounts, "with auto: also mounts that hear of what is mounted outside", flag<&Options::external_masters>},
  {"skip-mnt", 0, value, false, dump_command, "PATH", mounts, "leave a mount out", append<&Options::skip_mnt>},
  {"enable-fs", 0, value, false, both, "NAME,…|all", mounts, "file systems of these types can be mounted anew", add_filesystems},

  {"manage-cgroups", 0, maybe, false, both, "MODE", cgroups, "what to do with control groups: ignore, none, props, soft, full or strict (default: soft)", set_manage_cgroups},
  {"cgroup-root", 0, value, false, both, "[CTRL:]PATH", cgroups, "where the control groups of a controller begin", add_cgroup_root},
  {"cgroup-props", 0, value, false, dump_command, "STRING", cgroups, "which properties to save", text<&Options::cgroup_props>},
  {"cgroup-props-file", 0, value, false, dump_command, "FILE", cgroups, "the same from a file", text<&Options::cgroup_props_file>},
  {"cgroup-dump-controller", 0, value, false, dump_command, "NAME", cgroups, "which controllers to save (default: all)", append<&Options::cgroup_controllers>},
  {"cgroup-yard", 0, value, false, both, "DIR", cgroups, "a directory where all controllers are mounted", text<&Options::cgroup_yard>},

  {"track-mem", 0, none, true, dumps, nullptr, memory, "track changes of memory for the next dump (which copies all memory nevertheless)", flag<&Options::track_memory>},
  {"auto-dedup", 0, none, true, pages, nullptr, memory, "remove pages from older images as they are replaced", nullptr},
  {"pre-dump-mode", 0, value, false, pre_dump_command, "splice|read", memory, "how pre-dump gets at memory", nullptr, "splice"},
  {"page-server", 0, none, true, pages, nullptr, memory, "send memory to a page server", nullptr},
  {"lazy-pages", 0, none, false, pages, nullptr, memory, "bring memory when it is touched", nullptr},

  {"daemon", 'd', none, true, servers, nullptr, transfer, "go to the background", flag<&Options::detach>},
  {"address", 0, value, false, servers, "ADDR", transfer, "address of the server", text<&Options::address>},
  {"port", 0, value, false, servers, "PORT", transfer, "port of the server", check_port},
  {"ps-socket", 0, value, false, servers, "FD", transfer, "a connected socket to use", check_descriptor},
  {"tls", 0, none, true, servers, nullptr, transfer, "encrypt transfers (not in this build)", refuse_tls},
  {"tls-cacert", 0, value, false, servers, "FILE", transfer, "certificate of the authority", nothing},
  {"tls-cacrl", 0, value, false, servers, "FILE", transfer, "revoked certificates", nothing},
  {"tls-cert", 0, value, false, servers, "FILE", transfer, "own certificate", nothing},
  {"tls-key", 0, value, false, servers, "FILE", transfer, "own key", nothing},
  {"tls-no-cn-verify", 0, none, false, servers, nullptr, transfer, "do not check the name in the peer's certificate", nothing},

  {"log-file", 'o', value, false, every_command, "FILE", logging, "the log (default: stderr; -: stdout)", text<&Options::log_file>},
  {"log-pid", 0, none, true, restore_command, nullptr, logging, "restored tasks log to FILE.PID", flag<&Options::log_pid>},
  {"verbosity", 'v', maybe, false, every_command, "NUM", logging, "0 messages, 1 errors, 2 warnings (default), 3 information, 4 debugging; a bare -v adds one", set_verbosity},

  {"extra", 0, none, true, check_command, nullptr, checking, "also what only some trees need", flag<&Options::check_extra>},
  {"experimental", 0, none, true, check_command, nullptr, checking, "also what is experimental", flag<&Options::check_experimental>},
  {"all", 0, none, false, check_command, nullptr, checking, "--extra and --experimental", check_all},
  {"feature", 0, value, false, check_command, "NAME", checking, "only this kernel feature", text<&Options::check_feature>},
  {"ms", 0, none, false, every_command, nullptr, checking, "replaced by --extra", refuse_ms},
};
// clang-format on

struct Found {
  const OptionInfo* option;
  bool on;
};

// getopt's rules: a full name wins, else a prefix of exactly one name, the --no- forms being names as well.
Found look_up(std::string_view name) {
  Found found{nullptr, true};
  std::string candidates;
  int matches = 0;
  for (const auto& option : table) {
    for (const bool on : {true, false}) {
      if (!on && !option.negatable) {
        continue;
      }
      const std::string full = on ? option.name : std::string("no-") + option.name;
      if (full == name) {
        return {&option, on};
      }
      if (full.starts_with(name)) {
        found = {&option, on};
        candidates += " '--" + full + "'";
        ++matches;
      }
    }
  }
  if (matches == 0 || name.empty()) {
    throw UsageError("unrecognized option '--" + std::string(name) + "'", {}, 0);
  }
  if (matches > 1) {
    throw UsageError("option '--" + std::string(name) + "' is ambiguous; possibilities:" + candidates, {}, 0);
  }
  return found;
}

bool listed(std::string_view words, std::string_view word) {
  const auto at = words.find(word);
  return !word.empty() && at != words.npos && (at == 0 || words[at - 1] == ' ') &&
         (at + word.size() == words.size() || words[at + word.size()] == ' ');
}

void remember_not_yet(Options& options, const OptionInfo& option, const Given& given) {
  const bool harmless =
      option.harmless_value != nullptr && given.value != nullptr && listed(option.harmless_value, given.value);
  if (given.on && !harmless) {
    options.not_yet.insert(option.name);
  } else {
    options.not_yet.erase(option.name);
  }
}

}  // namespace

std::span<const OptionInfo> option_table() { return table; }

const OptionInfo* find_option(std::string_view name) {
  for (const auto& option : table) {
    if (name == option.name) {
      return &option;
    }
  }
  return nullptr;
}

void set_option(Options& options, std::string_view name, const char* given_value, std::string_view spelled) {
  const auto [option, on] = look_up(name);
  const std::string full = std::string("--") + (on ? "" : "no-") + option->name;
  if (option->takes == Takes::value && given_value == nullptr) {
    throw UsageError("option '" + full + "' requires an argument", {}, 0);
  }
  if (option->takes == Takes::nothing && given_value != nullptr) {
    throw UsageError("option '" + full + "' doesn't allow an argument", {}, 0);
  }
  const Given given{.spelled = spelled.empty() ? full : spelled, .value = given_value, .on = on};
  if (option->apply != nullptr) {
    option->apply(options, given);
  } else {
    remember_not_yet(options, *option, given);
  }
}

void set_flag(Options& options, std::string_view name, bool on) {
  const auto* option = find_option(name);
  const auto spelled = "--" + std::string(name);
  const Given given{.spelled = spelled, .value = nullptr, .on = on};
  if (option->apply != nullptr) {
    option->apply(options, given);
  } else {
    remember_not_yet(options, *option, given);
  }
}

void read_environment(Options& options) {
  if (::getenv("CRIU_DEPRECATED") != nullptr) {
    LOG_INFO("Turn deprecated stuff ON via env");
    options.deprecated = true;
  }
}

void validate(const Options& options, Command command) {
  if (options.sibling && !options.detach) {
    throw base::Error("--restore-sibling only makes sense with --restore-detached", {}, 0);
  }
  if (!options.inherit_fds.empty() && command != restore_command) {
    throw base::Error("--inherit-fd is restore-only option", {}, 0);
  }
  if (options.empty_net && !options.join_net.empty()) {
    throw base::Error("Conflicting flags: --join-ns and --empty-ns", {}, 0);
  }
  if (options.not_yet.contains("mntns-compat-mode") && command != restore_command) {
    throw base::Error("Option --mntns-compat-mode is only valid on restore", {}, 0);
  }
  std::string refused;
  for (const auto& name : options.not_yet) {
    if ((find_option(name)->commands & command) != 0) {
      refused += (refused.empty() ? "--" : ", --") + name;
    }
  }
  if (!refused.empty()) {
    throw base::Error(refused, "not supported by this version yet", 0);
  }
  if ((command == dump_command || command == pre_dump_command) && options.tree == 0) {
    throw base::Error("pid not specified", {}, 0, "-t PID names the root of the tree");
  }
  if (command == restore_command && options.detach && options.final_state == FinalState::stopped && options.shell_job) {
    LOG_WARN("a shell job that is restored stopped and detached gets SIGHUP when this program ends");
  }
}

void resolve_paths(Options& options) {
  const auto absolute = [](std::string& path, const std::string& base) {
    if (path.empty() || path.front() != '/') {
      path = path.empty() ? base : base + "/" + path;
    }
  };
  // The current directory can be gone or out of reach; that matters only when a name depends on it.
  char* current = ::get_current_dir_name();
  const std::string here = current != nullptr ? current : ".";
  ::free(current);
  if (options.images_dir == "." || options.images_dir.empty()) {
    options.images_dir = here;
  }
  absolute(options.images_dir, here);
  if (options.work_dir.empty()) {
    options.work_dir = options.images_dir;
  }
  absolute(options.work_dir, here);
  for (auto* path :
       {&options.libdir, &options.root, &options.cgroup_props_file, &options.cgroup_yard, &options.freeze_cgroup}) {
    if (!path->empty()) {
      absolute(*path, here);
    }
  }
  if (!options.pidfile.empty()) {
    absolute(options.pidfile, options.work_dir);
  }
  if (!options.log_file.empty() && options.log_file != "-") {
    absolute(options.log_file, options.work_dir);
  }
}

}  // namespace criu
