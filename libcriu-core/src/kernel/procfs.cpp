// SPDX-License-Identifier: LGPL-2.1-only
#include "kernel/procfs.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <map>

#include "base/error.hpp"

namespace criu::procfs {

using base::check;
using base::Error;

namespace {

// Takes numbers and words off the front of a text.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  bool done() const { return text_.empty(); }
  void blanks() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\t')) {
      text_.remove_prefix(1);
    }
  }
  bool accept(std::string_view what) {
    if (text_.substr(0, what.size()) != what) {
      return false;
    }
    text_.remove_prefix(what.size());
    return true;
  }
  template <typename T>
  bool number(T& value, int base = 10) {
    blanks();
    const auto [end, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value, base);
    if (error != std::errc{}) {
      return false;
    }
    text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
    return true;
  }
  template <typename T>
  T need(int base = 10) {
    T value{};
    if (!number(value, base)) {
      throw Error("read /proc", "a number was expected at '" + std::string(text_.substr(0, 40)) + "'", 0);
    }
    return value;
  }
  char character() {
    blanks();
    if (text_.empty()) {
      throw Error("read /proc", "the text ends too early", 0);
    }
    const char c = text_.front();
    text_.remove_prefix(1);
    return c;
  }
  std::string_view line() {
    const auto end = text_.find('\n');
    const auto line = text_.substr(0, end);
    text_.remove_prefix(end == std::string_view::npos ? text_.size() : end + 1);
    return line;
  }
  std::string_view rest() const { return text_; }

 private:
  std::string_view text_;
};

std::string path_of(pid_t pid, pid_t tid) {
  return tid == 0 ? fmt::format("/proc/{}", pid) : fmt::format("/proc/{}/task/{}", pid, tid);
}

base::Fd open_dir(pid_t pid, pid_t tid) {
  const auto path = path_of(pid, tid);
  return base::Fd(check(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), "open", path));
}

}  // namespace

Task::Task(pid_t pid) : pid_(pid), dir_(open_dir(pid, 0)) {}
Task::Task(pid_t pid, pid_t tid) : pid_(pid), dir_(open_dir(pid, tid)) {}

std::string read_file(int dir, const char* name, const std::string& what) {
  const base::Fd fd(check(::openat(dir, name, O_RDONLY | O_CLOEXEC), "open", what));
  std::string text(4096, '\0');
  std::size_t used = 0;
  for (;;) {
    if (used == text.size()) {
      text.resize(text.size() * 4);
    }
    const auto got = check(::read(fd.get(), text.data() + used, text.size() - used), "read", what);
    if (got == 0) {
      text.resize(used);
      return text;
    }
    used += static_cast<std::size_t>(got);
  }
}

std::string Task::read(const char* name) const {
  return read_file(dir_.get(), name, fmt::format("/proc/{}/{}", pid_, name));
}

std::string Task::link(const char* name) const {
  char target[4096];
  const auto got = ::readlinkat(dir_.get(), name, target, sizeof target);
  if (got < 0) {
    throw Error("read link", fmt::format("/proc/{}/{}", pid_, name), errno);
  }
  return {target, static_cast<std::size_t>(got)};
}

base::Fd Task::open(const char* name, int flags) const {
  return base::Fd(check(::openat(dir_.get(), name, flags | O_CLOEXEC), "open", fmt::format("/proc/{}/{}", pid_, name)));
}

Stat parse_stat(const std::string& text) {
  // The name may hold anything, parentheses and blanks too: it ends at the last parenthesis.
  const auto open = text.find('(');
  const auto close = text.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) {
    throw Error("read /proc", "stat without a name", 0);
  }
  Stat stat;
  stat.comm = text.substr(open + 1, close - open - 1);
  Scanner scan(std::string_view(text).substr(close + 1));
  stat.state = scan.character();
  std::uint64_t field[53] = {};
  for (int number = 4; number <= 52; ++number) {
    field[number] = static_cast<std::uint64_t>(scan.rest().find_first_not_of(' ') != std::string_view::npos &&
                                                       scan.rest()[scan.rest().find_first_not_of(' ')] == '-'
                                                   ? static_cast<std::uint64_t>(scan.need<std::int64_t>())
                                                   : scan.need<std::uint64_t>());
  }
  stat.ppid = static_cast<pid_t>(field[4]);
  stat.pgrp = static_cast<pid_t>(field[5]);
  stat.session = static_cast<pid_t>(field[6]);
  stat.terminal = static_cast<std::uint32_t>(field[7]);
  stat.foreground = static_cast<pid_t>(field[8]);
  stat.flags = static_cast<std::uint32_t>(field[9]);
  stat.nice = static_cast<int>(field[19]);
  stat.start_time = field[22];
  stat.resident = field[24];
  stat.start_code = field[26], stat.end_code = field[27], stat.start_stack = field[28];
  stat.rt_priority = static_cast<unsigned>(field[40]), stat.policy = static_cast<unsigned>(field[41]);
  stat.start_data = field[45], stat.end_data = field[46], stat.start_brk = field[47];
  stat.arg_start = field[48], stat.arg_end = field[49], stat.env_start = field[50], stat.env_end = field[51];
  stat.exit_code = static_cast<int>(field[52]);
  stat.exit_signal = static_cast<int>(field[38]);
  return stat;
}

bool is_within(pid_t task, pid_t root) {
  try {
    while (task > 0 && task != root) {
      task = parse_stat(Task(task).read("stat")).ppid;
    }
  } catch (const Error& error) {
    if (error.code() != ENOENT && error.code() != ESRCH) {
      throw;
    }
    return false;
  }
  return task > 0;
}

namespace {

template <typename T>
std::vector<T> numbers(Scanner scan) {
  std::vector<T> values;
  for (T value{}; scan.number(value);) {
    values.push_back(value);
  }
  return values;
}

void four(Scanner scan, std::uint32_t (&ids)[4]) {
  for (auto& id : ids) {
    id = scan.need<std::uint32_t>();
  }
}

}  // namespace

Status parse_status(const std::string& text) {
  Status status;
  Scanner lines(text);
  while (!lines.done()) {
    Scanner line(lines.line());
    if (line.accept("Uid:")) {
      four(line, status.uid);
    } else if (line.accept("Gid:")) {
      four(line, status.gid);
    } else if (line.accept("Groups:")) {
      status.groups = numbers<std::uint32_t>(line);
    } else if (line.accept("Umask:")) {
      status.umask = line.need<std::uint32_t>(8);
      status.has_umask = true;
    } else if (line.accept("TracerPid:")) {
      status.tracer = line.need<pid_t>();
    } else if (line.accept("NSpid:")) {
      status.ns_pid = numbers<pid_t>(line);
    } else if (line.accept("NSpgid:")) {
      status.ns_pgid = numbers<pid_t>(line);
    } else if (line.accept("NSsid:")) {
      status.ns_sid = numbers<pid_t>(line);
    } else if (line.accept("SigPnd:") || line.accept("ShdPnd:")) {
      status.signals_pending |= line.need<std::uint64_t>(16);
    } else if (line.accept("SigBlk:")) {
      status.signals_blocked = line.need<std::uint64_t>(16);
    } else if (line.accept("VmLck:")) {
      status.locked = line.need<std::uint64_t>();
    } else if (line.accept("CapInh:")) {
      status.cap_inheritable = line.need<std::uint64_t>(16);
    } else if (line.accept("CapPrm:")) {
      status.cap_permitted = line.need<std::uint64_t>(16);
    } else if (line.accept("CapEff:")) {
      status.cap_effective = line.need<std::uint64_t>(16);
    } else if (line.accept("CapBnd:")) {
      status.cap_bounding = line.need<std::uint64_t>(16);
    } else if (line.accept("CapAmb:")) {
      status.cap_ambient = line.need<std::uint64_t>(16);
    } else if (line.accept("NoNewPrivs:")) {
      status.no_new_privs = line.need<int>() != 0;
    } else if (line.accept("Seccomp:")) {
      status.seccomp = line.need<int>();
    } else if (line.accept("Seccomp_filters:")) {
      status.seccomp_filters = line.need<unsigned>();
    }
  }
  return status;
}

bool Area::has(const char (&flag)[3]) const {
  for (std::size_t at = 0; at + 1 < flags.size(); at += 3) {
    if (flags[at] == flag[0] && flags[at + 1] == flag[1]) {
      return true;
    }
  }
  return false;
}

namespace {

// "start-end rwxp offset major:minor inode    name"; false when the line is not the head of an area.
bool parse_area(std::string_view text, Area& area) {
  Scanner line(text);
  if (!line.number(area.start, 16) || !line.accept("-") || !line.number(area.end, 16)) {
    return false;
  }
  line.blanks();
  if (line.rest().size() < 5) {
    return false;
  }
  area.readable = line.character() == 'r';
  area.writable = line.character() == 'w';
  area.executable = line.character() == 'x';
  area.shared = line.character() == 's';
  area.offset = line.need<std::uint64_t>(16);
  area.dev_major = line.need<unsigned>(16);
  line.accept(":");
  area.dev_minor = line.need<unsigned>(16);
  area.inode = line.need<std::uint64_t>();
  line.blanks();
  area.name = line.rest();
  return true;
}

}  // namespace

std::vector<Area> parse_smaps(std::string_view text) {
  std::vector<Area> areas;
  Scanner lines(text);
  while (!lines.done()) {
    const auto line = lines.line();
    // Only the heads of areas start with a hexadecimal digit in lower case or a number; the attributes are capitalised.
    const char first = line.empty() ? '\0' : line.front();
    if ((first >= '0' && first <= '9') || (first >= 'a' && first <= 'f')) {
      Area area;
      if (!parse_area(line, area)) {
        throw Error("read /proc", "smaps: '" + std::string(line) + "'", 0);
      }
      areas.push_back(std::move(area));
    } else if (!areas.empty() && line.starts_with("VmFlags: ")) {
      areas.back().flags = line.substr(9);
    } else if (!areas.empty() && line.starts_with("Rss:")) {
      Scanner size(line.substr(4));
      areas.back().resident = size.need<std::uint64_t>() * 1024;
    } else if (!areas.empty() && (line.starts_with("Shared_Clean:") || line.starts_with("Shared_Dirty:"))) {
      Scanner size(line.substr(13));
      areas.back().mapped_by_others |= size.need<std::uint64_t>() != 0;
    } else if (!areas.empty() && line.starts_with("ProtectionKey:")) {
      areas.back().protection_key = Scanner(line.substr(14)).need<unsigned>();
    } else if (!areas.empty() && line.starts_with("KernelPageSize:")) {
      Scanner size(line.substr(15));
      areas.back().page_size = size.need<std::uint64_t>() * 1024;
    }
  }
  return areas;
}

std::vector<Timer> parse_timers(std::string_view text) {
  std::vector<Timer> timers;
  Scanner lines(text);
  while (!lines.done()) {
    Scanner line(lines.line());
    if (line.accept("ID:")) {
      timers.emplace_back().id = line.need<int>();
    } else if (timers.empty()) {
      continue;
    } else if (line.accept("signal:")) {
      timers.back().signo = line.need<int>();
      line.accept("/");
      timers.back().value = line.need<std::uint64_t>(16);
    } else if (line.accept("notify:")) {
      line.blanks();
      timers.back().notify = line.accept("signal") ? SIGEV_SIGNAL : line.accept("none") ? SIGEV_NONE : SIGEV_THREAD;
      if (line.accept("thread")) {
        timers.back().notify = SIGEV_THREAD;
      }
      if (line.accept("/tid.")) {
        timers.back().notify = SIGEV_THREAD_ID;
        timers.back().tid = line.need<pid_t>();
      }
    } else if (line.accept("ClockID:")) {
      timers.back().clock = line.need<int>();
    }
  }
  return timers;
}

std::vector<Limit> parse_limits(std::string_view text) {
  static const std::map<std::string_view, int> number_of = {
      {"Max cpu time", RLIMIT_CPU},
      {"Max file size", RLIMIT_FSIZE},
      {"Max data size", RLIMIT_DATA},
      {"Max stack size", RLIMIT_STACK},
      {"Max core file size", RLIMIT_CORE},
      {"Max resident set", RLIMIT_RSS},
      {"Max processes", RLIMIT_NPROC},
      {"Max open files", RLIMIT_NOFILE},
      {"Max locked memory", RLIMIT_MEMLOCK},
      {"Max address space", RLIMIT_AS},
      {"Max file locks", RLIMIT_LOCKS},
      {"Max pending signals", RLIMIT_SIGPENDING},
      {"Max msgqueue size", RLIMIT_MSGQUEUE},
      {"Max nice priority", RLIMIT_NICE},
      {"Max realtime priority", RLIMIT_RTPRIO},
      {"Max realtime timeout", RLIMIT_RTTIME},
  };
  std::vector<Limit> limits(RLIM_NLIMITS, Limit{RLIM_INFINITY, RLIM_INFINITY});
  Scanner lines(text);
  while (!lines.done()) {
    const auto line = lines.line();
    for (const auto& [name, number] : number_of) {
      if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ' ') {
        continue;
      }
      Scanner scan(line.substr(name.size()));
      for (auto* value :
           {&limits[static_cast<std::size_t>(number)].soft, &limits[static_cast<std::size_t>(number)].hard}) {
        scan.blanks();
        *value = scan.accept("unlimited") ? RLIM_INFINITY : scan.need<std::uint64_t>();
      }
    }
  }
  return limits;
}

}  // namespace criu::procfs
