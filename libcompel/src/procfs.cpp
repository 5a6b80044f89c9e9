// SPDX-License-Identifier: LGPL-2.1-only
#include "procfs.hpp"

#include <dirent.h>
#include <elf.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <array>
#include <base/error.hpp>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace compel::procfs {
namespace {

// Empty when there is no such file (any more).
std::optional<std::string> slurp(int directory, const char* path) {
  const base::Fd fd(::openat(directory, path, O_RDONLY | O_CLOEXEC));
  if (!fd) {
    return std::nullopt;
  }
  std::string text;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0) {
      return std::nullopt;  // ESRCH: it died between open and read
    }
    if (got == 0) {
      return text;
    }
    text.append(buffer.data(), static_cast<std::size_t>(got));
    if (text.size() < 1024 && static_cast<std::size_t>(got) < buffer.size()) {
      return text;  // the small files come in one piece, and it is read from thousands of them
    }
  }
}

std::optional<Stat> parse_stat(const std::optional<std::string>& text) {
  if (!text) {
    return std::nullopt;
  }
  // The name may hold anything, parentheses and blanks too: its end is the last parenthesis.
  const std::size_t open = text->find('('), close = text->rfind(')');
  if (open == std::string::npos || close == std::string::npos || close + 4 > text->size()) {
    return std::nullopt;
  }
  Stat stat;
  stat.name = text->substr(open + 1, close - open - 1);
  stat.state = (*text)[close + 2];
  const char* at = text->c_str() + close + 3;
  for (int field = 4; field <= 22; ++field) {
    char* end = nullptr;
    const unsigned long long value = std::strtoull(at, &end, 10);
    at = end;
    if (field == 4) {
      stat.ppid = static_cast<pid_t>(value);
    } else if (field == 9) {
      stat.flags = static_cast<unsigned>(value);
    } else if (field == 22) {
      stat.start_time = value;
    }
  }
  return stat;
}

std::string path_of(pid_t pid, const char* name) { return "/proc/" + std::to_string(pid) + "/" + name; }

}  // namespace

TaskDirectory::TaskDirectory(pid_t pid)
    : fd_(::open(path_of(pid, "task").c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {}

std::uint64_t TaskDirectory::resident() const {
  const auto text = slurp(fd_.get(), "../statm");
  const auto blank = text ? text->find(' ') : std::string::npos;
  return blank == std::string::npos ? 0 : std::strtoull(text->c_str() + blank, nullptr, 10);
}

std::vector<pid_t> TaskDirectory::threads() const {
  std::vector<pid_t> tids;
  if (!fd_ || ::lseek(fd_.get(), 0, SEEK_SET) < 0) {
    return tids;
  }
  alignas(dirent64) std::array<char, 32768> buffer;
  for (;;) {
    const long got = ::syscall(SYS_getdents64, fd_.get(), buffer.data(), buffer.size());
    if (got <= 0) {
      return tids;
    }
    for (long at = 0; at < got;) {
      const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
      at += entry->d_reclen;
      const pid_t tid = static_cast<pid_t>(std::strtol(entry->d_name, nullptr, 10));
      if (tid > 0) {
        tids.push_back(tid);
      }
    }
  }
}

std::optional<Stat> TaskDirectory::stat(pid_t tid) const {
  return parse_stat(slurp(fd_.get(), (std::to_string(tid) + "/stat").c_str()));
}

bool TaskDirectory::children(pid_t tid, std::vector<pid_t>& out) const {
  const std::optional<std::string> text = slurp(fd_.get(), (std::to_string(tid) + "/children").c_str());
  if (!text) {
    // Gone, or a kernel without CONFIG_PROC_CHILDREN? The latter shows on ourselves.
    return ::access("/proc/thread-self/children", F_OK) == 0;
  }
  const char* at = text->c_str();
  for (;;) {
    char* end = nullptr;
    const long pid = std::strtol(at, &end, 10);
    if (end == at) {
      return true;
    }
    out.push_back(static_cast<pid_t>(pid));
    at = end;
  }
}

std::optional<Stat> stat(pid_t pid) { return parse_stat(slurp(AT_FDCWD, path_of(pid, "stat").c_str())); }

long status_number(pid_t pid, const char* key) {
  const std::optional<std::string> text = slurp(AT_FDCWD, path_of(pid, "status").c_str());
  const std::string line = std::string("\n") + key + ":";
  const std::size_t at = text ? text->find(line) : std::string::npos;
  return at == std::string::npos ? -1 : std::strtol(text->c_str() + at + line.size(), nullptr, 10);
}

std::vector<Area> areas(pid_t pid) {
  const std::optional<std::string> text = slurp(AT_FDCWD, path_of(pid, "maps").c_str());
  if (!text) {
    throw base::Error("open", path_of(pid, "maps"), errno);
  }
  std::vector<Area> all;
  for (std::size_t begin = 0; begin < text->size();) {
    std::size_t end = text->find('\n', begin);
    end = end == std::string::npos ? text->size() : end;
    const std::string line = text->substr(begin, end - begin);
    begin = end + 1;
    Area area;
    char* at = nullptr;
    area.begin = std::strtoull(line.c_str(), &at, 16);
    area.end = std::strtoull(at + 1, &at, 16);
    area.read = at[1] == 'r';
    area.write = at[2] == 'w';
    area.execute = at[3] == 'x';
    area.shared = at[4] == 's';
    std::strtoull(at + 6, &at, 16);                    // offset
    at = const_cast<char*>(std::strchr(at + 1, ' '));  // device
    area.file = std::strtoull(at, &at, 10) != 0;
    area.name = at + std::strspn(at, " ");
    all.push_back(std::move(area));
  }
  return all;
}

namespace {

// <linux/fs.h> of Linux 6.11.
struct AreaQuery {
  std::uint64_t size, flags, address;
  std::uint64_t begin, end, is, page_size, offset, inode;
  std::uint32_t device_major, device_minor, name_size, build_id_size;
  std::uint64_t name, build_id;
};
static_assert(sizeof(AreaQuery) == 104);
constexpr unsigned long query_area = _IOWR('f', 17, AreaQuery);
enum : std::uint64_t { readable = 1, writable = 2, executable = 4, is_shared = 8 };

}  // namespace

std::optional<Area> vdso(pid_t pid) {
  const std::optional<std::string> told = slurp(AT_FDCWD, path_of(pid, "auxv").c_str());
  std::uint64_t pair[2] = {};
  for (std::size_t at = 0; told && at + sizeof pair <= told->size() && pair[0] != AT_SYSINFO_EHDR; at += sizeof pair) {
    std::memcpy(pair, told->data() + at, sizeof pair);
  }
  const base::Fd maps(pair[0] == AT_SYSINFO_EHDR ? ::open(path_of(pid, "maps").c_str(), O_RDONLY | O_CLOEXEC) : -1);
  char name[64] = {};
  AreaQuery query{};
  query.size = sizeof query;
  query.address = pair[1];
  query.name = reinterpret_cast<std::uintptr_t>(name);
  query.name_size = sizeof name;
  if (!maps || ::ioctl(maps.get(), query_area, &query) != 0 || std::strcmp(name, "[vdso]") != 0) {
    return std::nullopt;
  }
  Area area;
  area.begin = query.begin;
  area.end = query.end;
  area.read = (query.is & readable) != 0;
  area.write = (query.is & writable) != 0;
  area.execute = (query.is & executable) != 0;
  area.shared = (query.is & is_shared) != 0;
  area.name = name;
  return area;
}

std::string describe(pid_t pid, pid_t tid) {
  const std::optional<Stat> about = stat(pid);
  const std::string task = "task " + std::to_string(pid) + (about ? " (" + about->name + ")" : "");
  return tid == 0 || tid == pid ? task : "thread " + std::to_string(tid) + " of " + task;
}

}  // namespace compel::procfs
