// SPDX-License-Identifier: LGPL-2.1-only
#include "files/epoll.hpp"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <map>

#include "files/common.hpp"
#include "files/saver.hpp"
#include "log.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

namespace {

// struct epoll_params and its calls, Linux 6.9.
constexpr unsigned long get_params = 0x80088a02;
constexpr unsigned long set_params = 0x40088a01;
constexpr std::size_t params_size = 8;

void save(Saver&, const Description& description, images::file_entry& entry) {
  auto& epoll = *entry.mutable_epfd();
  epoll.set_id(entry.id());
  epoll.set_flags(description.info.flags & ~static_cast<unsigned>(O_CLOEXEC));
  std::string params(params_size, '\0');
  if (::ioctl(description.own, get_params, params.data()) == 0 && params != std::string(params_size, '\0')) {
    epoll.set_busy_poll(params);
  }
}

// What is watched can be known only after all descriptors are.
void save_late(Saver& saver, const Description& description, images::file_entry& entry) {
  std::map<int, unsigned> met;  // one number can have been added several times, while it meant different files
  for (const auto& target : kernel::epoll_targets(description.info.text)) {
    auto& watch = *entry.mutable_epfd()->add_tfd();
    watch.set_id(0);
    watch.set_events(target.events);
    watch.set_data(target.data);
    watch.set_dev(target.dev);
    watch.set_inode(target.ino);
    watch.set_pos(static_cast<std::uint64_t>(target.pos));
    const auto found = saver.watched(description.pid, description.fd, target, met[target.fd]++);
    if (found.file_id == 0) {
      throw Error("cannot dump",
                  fmt::format("{} watches what was fd {} (inode {:#x}): that is closed there, and what keeps it open "
                              "is outside of the tree",
                              description.what(), target.fd, target.ino),
                  0);
    }
    watch.set_tfd(static_cast<std::uint32_t>(found.fd >= 0 ? found.fd : target.fd));
    if (found.fd < 0) {
      watch.set_file_id(found.file_id);
    } else if (found.fd != target.fd) {
      watch.set_added_as(static_cast<std::uint32_t>(target.fd));
    }
  }
}

std::vector<base::Fd> make(RestoreContext&, std::span<const images::file_entry* const> group) {
  const auto& entry = group.front()->epfd();
  const auto what = fmt::format("epoll (file {})", entry.id());
  base::Fd fd(check(::epoll_create1(EPOLL_CLOEXEC), "make", what));
  set_flags(fd.get(), entry.flags(), what);
  if (entry.has_busy_poll()) {
    if (entry.busy_poll().size() != params_size) {
      throw Error("corrupt checkpoint", "busy-poll parameters of " + what, 0);
    }
    if (::ioctl(fd.get(), set_params, entry.busy_poll().data()) < 0) {
      LOG_WARN("the busy-poll parameters of {} cannot be set: {}", what, std::strerror(errno));
    }
  }
  return one(std::move(fd));
}

// Lets a number mean another file for a while.
class Stand {
 public:
  Stand(const RestoreContext& context, int number, int file, const std::string& what) : number_(number) {
    flags_ = ::fcntl(number, F_GETFD);
    if (flags_ >= 0) {
      kept_ = base::Fd(
          check(::fcntl(number, F_DUPFD_CLOEXEC, context.first_internal_fd), "put aside a descriptor for", what));
    }
    check(::dup3(file, number, O_CLOEXEC), "stand in for", what);
  }
  Stand(const Stand&) = delete;
  Stand& operator=(const Stand&) = delete;
  ~Stand() {
    if (kept_) {
      ::dup3(kept_.get(), number_, (flags_ & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
    } else {
      ::close(number_);
    }
  }

 private:
  int number_;
  int flags_;
  base::Fd kept_;
};

void add(int epoll, int number, const images::eventpoll_tfd_entry& watch, const std::string& what) {
  epoll_event event{};
  event.events = watch.events();
  event.data.u64 = watch.data();
  check(::epoll_ctl(epoll, EPOLL_CTL_ADD, number, &event), "watch", what);
}

// Adds `file` under a number that means something else in the task, or nothing.
void add_as(const RestoreContext& context, int epoll, int number, int file, const images::eventpoll_tfd_entry& watch,
            const std::string& what) {
  // Both may have that very number for now.
  const base::Fd own(check(::fcntl(epoll, F_DUPFD_CLOEXEC, number + 1), "duplicate", what));
  const base::Fd source(check(::fcntl(file, F_DUPFD_CLOEXEC, number + 1), "duplicate", what));
  const Stand stand(context, number, source.get(), what);
  add(own.get(), number, watch, what);
}

void connect(RestoreContext& context, const TaskImage& task, std::span<const Made> group) {
  const auto& entry = *group.front().entry;
  const int fd = group.front().fd;
  constexpr std::uint32_t highest = 1U << 30;
  for (const auto& watch : entry.epfd().tfd()) {
    const auto what = fmt::format("fd {} with epoll (file {}) of {}", watch.tfd(), entry.id(), task.name());
    if (watch.tfd() > highest || watch.added_as() > highest) {
      throw Error("corrupt checkpoint", what + ": no such number", 0);
    }
    const auto number = static_cast<int>(watch.has_added_as() ? watch.added_as() : watch.tfd());
    if (watch.has_file_id()) {
      add_as(context, fd, number, context.files.fetch(context, watch.file_id(), what).get(), watch, what);
    } else if (watch.has_added_as()) {
      add_as(context, fd, number, static_cast<int>(watch.tfd()), watch, what);
    } else {
      add(fd, number, watch, what);
    }
  }
}

}  // namespace

const Kind epoll_kind = {
    .type = images::EVENTPOLL,
    .name = "epoll",
    .recognise = [](const Description& description) { return description.link == "anon_inode:[eventpoll]"; },
    .save = save,
    .save_late = save_late,
    .owner = [](images::file_entry& entry) { return entry.mutable_epfd()->mutable_fown(); },
    .make = make,
    .connect = connect,
};

}  // namespace criu::files
