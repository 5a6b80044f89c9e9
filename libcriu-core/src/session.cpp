// SPDX-License-Identifier: LGPL-2.1-only
#include "session.hpp"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "base/fd.hpp"
#include "log.hpp"
#include "options_table.hpp"
#include "version.hpp"

namespace criu {

namespace {

// The effective set as two words. The kernel is asked directly: libcap would be loaded for this alone.
std::uint64_t effective_capabilities() {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2]{};
  base::check(::syscall(SYS_capget, &header, data), "read own capabilities");
  return data[0].effective | static_cast<std::uint64_t>(data[1].effective) << 32;
}

constexpr std::uint64_t capability_bit(int number) { return std::uint64_t{1} << number; }

#ifndef CAP_CHECKPOINT_RESTORE
#define CAP_CHECKPOINT_RESTORE 40  // Linux 5.9
#endif

// A random UUID: names this run in its log.
std::string run_id() {
  std::array<unsigned char, 16> bytes{};
  [[maybe_unused]] const auto got = ::getrandom(bytes.data(), bytes.size(), GRND_NONBLOCK);
  bytes[6] = static_cast<unsigned char>((bytes[6] & 0x0f) | 0x40);
  bytes[8] = static_cast<unsigned char>((bytes[8] & 0x3f) | 0x80);
  std::string text;
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    text += fmt::format("{}{:02x}", at == 4 || at == 6 || at == 8 || at == 10 ? "-" : "", bytes[at]);
  }
  return text;
}

int create_log(const std::string& path) {
  constexpr int flags = O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC;
  return base::check(::open(path.c_str(), flags, 0600), "can't create log file", path);
}

void open_log(const Options& options) {
  int fd = STDERR_FILENO;
  if (options.log_file == "-") {
    fd = STDOUT_FILENO;
  } else if (!options.log_file.empty()) {
    fd = create_log(options.log_file);
  }
  log::open(fd, options.verbosity);
}

}  // namespace

void check_privileges(const Options& options) {
  LOG_INFO("CRIU run id = {}", run_id());
  const auto effective = effective_capabilities();
  if ((effective & (capability_bit(CAP_SYS_ADMIN) | capability_bit(CAP_CHECKPOINT_RESTORE))) == 0) {
    throw PrivilegeError(std::string("CRIU needs to have the CAP_SYS_ADMIN or the CAP_CHECKPOINT_RESTORE capability: \n"
                                     "setcap cap_checkpoint_restore+eip ") +
                         program_invocation_name);
  }
  if (::geteuid() == 0) {
    return;
  }
  if (!options.unprivileged) {
    throw PrivilegeError(
        "Running as non-root requires '--unprivileged'\nPlease consult the documentation for limitations when running "
        "as non-root");
  }
  // Capabilities gained from a file leave the process undumpable, and its own /proc files then belong to root.
  ::prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
}

void start_session(Options& options, Command command) {
  resolve_paths(options);
  if (command != service_command) {
    const base::Fd images(::open(options.images_dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!images) {
      throw base::Error("Couldn't open image dir " + options.images_dir, {}, errno);
    }
  }
  base::check(::chdir(options.work_dir.c_str()), "can't change to work dir", options.work_dir);
  open_log(options);
  if (log::on(log::info)) {
    LOG_INFO("Version: {} (gitid 0)", version_text);
    utsname system{};
    ::uname(&system);
    LOG_INFO("Running on {} {} {} {} {}", system.nodename, system.sysname, system.release, system.version,
             system.machine);
  }
  validate(options, command);
}

void log_as_task(const Options& options, pid_t pid) {
  if (options.log_pid && !options.log_file.empty() && options.log_file != "-") {
    const base::Fd file(create_log(options.log_file + "." + std::to_string(pid)));
    log::continue_in(file.get());
  } else {
    log::speak_as(pid);
  }
}

void write_pidfile(const Options& options, pid_t pid) {
  if (options.pidfile.empty()) {
    return;
  }
  const base::Fd fd(base::check(::open(options.pidfile.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600),
                                "can't create pid file", options.pidfile));
  const auto text = std::to_string(pid);
  if (::write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    const int error = errno;
    ::unlink(options.pidfile.c_str());
    throw base::Error("can't write pid file", options.pidfile, error);
  }
}

void tell_ready(const Options& options) {
  if (options.status_fd < 0) {
    return;
  }
  const base::Fd fd(options.status_fd);
  if (::write(fd.get(), "", 1) != 1) {
    throw base::Error("can't write to --status-fd", std::to_string(options.status_fd), errno);
  }
}

}  // namespace criu
