// SPDX-License-Identifier: LGPL-2.1-only
#include "files/pty_numbers.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "base/error.hpp"
#include "kernel/procfs.hpp"
#include "kernel/procfs_fd.hpp"
#include "log.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

constexpr decltype(statfs::f_type) devpts_magic = 0x1cd1;

std::string directory_of(const std::string& path) { return path.substr(0, path.rfind('/')); }

// The devpts in which the kernel makes a pty when this path is opened.
unsigned long devpts_of(const std::string& ptmx, const std::string& what) {
  struct statfs fs {};
  struct stat node {};
  const auto beside = directory_of(ptmx) + "/pts";
  const auto& path = ::statfs(ptmx.c_str(), &fs) == 0 && fs.f_type == devpts_magic ? ptmx : beside;
  check(::stat(path.c_str(), &node), "find the devpts of", what);
  return node.st_dev;
}

base::Fd open_master(const std::string& ptmx, const std::string& what) {
  return base::Fd(check(::open(ptmx.c_str(), O_RDWR | O_NOCTTY | O_CLOEXEC), ("open " + ptmx + " for").c_str(), what));
}

unsigned number_of(int master, const std::string& what) {
  unsigned number = 0;
  check(::ioctl(master, TIOCGPTN, &number), "ask for the number of", what);
  return number;
}

// Only asked for a message.
std::string holder_of(unsigned number) {
  std::error_code ignored;
  for (const auto& process : std::filesystem::directory_iterator("/proc", ignored)) {
    for (const auto& fd : std::filesystem::directory_iterator(process.path() / "fdinfo", ignored)) {
      try {
        const auto text = procfs::read_file(AT_FDCWD, fd.path().c_str(), fd.path());
        unsigned found = 0;
        const auto index = kernel::field(text, "tty-index");
        if (index && std::from_chars(index->data(), index->data() + index->size(), found).ec == std::errc{} &&
            found == number) {
          auto comm = procfs::read_file(AT_FDCWD, (process.path() / "comm").c_str(), "comm");
          return fmt::format("process {} ({})", process.path().filename().string(), comm.substr(0, comm.find('\n')));
        }
      } catch (const Error&) {
        // It ended meanwhile.
      }
    }
  }
  return "somebody";
}

}  // namespace

std::string ptmx_beside(const std::string& slave) {
  const auto directory = directory_of(slave);
  const auto above = directory_of(directory) + "/ptmx";
  return directory.ends_with("/pts") && ::access(above.c_str(), F_OK) == 0 ? above : directory + "/ptmx";
}

void PtyNumbers::want(unsigned number, const std::string& ptmx, const std::string& what) {
  if (!wishes_[devpts_of(ptmx, what)].emplace(number, Wish{count_++, ptmx, what}).second) {
    throw Error("corrupt checkpoint", what + " is there twice", 0);
  }
}

void PtyNumbers::make(Wishes& wishes, Taken taken, std::vector<base::Fd>& made) const {
  std::vector<base::Fd> in_between;
  while (!wishes.empty()) {
    const auto path = wishes.begin()->second.ptmx;
    auto master = open_master(path, wishes.begin()->second.what);
    const auto number = number_of(master.get(), wishes.begin()->second.what);
    // None that is lower is free.
    while (!wishes.empty() && wishes.begin()->first < number) {
      const auto& [missed, wish] = *wishes.begin();
      if (taken == Taken::fails) {
        throw Error("cannot restore", wish.what, EBUSY,
                    fmt::format("number {} is taken by {}: end that one, or restore in a mount namespace with a devpts "
                                "of its own",
                                missed, holder_of(missed)));
      }
      LOG_WARN("{} gets number {}: {} is taken", wish.what, number, missed);
      made[wish.position] = context_.internal(open_master(wish.ptmx, wish.what));
      wishes.erase(wishes.begin());
    }
    const auto wish = wishes.find(number);
    if (wish == wishes.end()) {
      in_between.push_back(context_.internal(std::move(master)));
      continue;
    }
    // A descriptor shows the path that it was opened by.
    if (wish->second.ptmx != path) {
      master.reset();
      master = open_master(wish->second.ptmx, wish->second.what);
      if (number_of(master.get(), wish->second.what) != number) {
        continue;  // somebody was quicker
      }
    }
    made[wish->second.position] = context_.internal(std::move(master));
    wishes.erase(wish);
  }
}

std::vector<base::Fd> PtyNumbers::make(Taken taken) {
  std::vector<base::Fd> made(count_);
  for (auto& [devpts, wishes] : wishes_) {
    make(wishes, taken, made);
  }
  return made;
}

}  // namespace criu::files
