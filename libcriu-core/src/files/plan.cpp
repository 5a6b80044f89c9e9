// SPDX-License-Identifier: LGPL-2.1-only
#include "files/plan.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.hpp"
#include "files/owner.hpp"
#include "namespaces/steward.hpp"
#include "restore_context.hpp"

namespace criu::files {

using base::check;
using base::Error;

Plan::Plan(const Checkpoint& checkpoint) {
  for (const auto& task : checkpoint.tasks) {
    for (const auto& fd : task->fds) {
      add(checkpoint, *task, checkpoint.file(fd.type(), fd.id(), fmt::format("fd {} of {}", fd.fd(), task->name())));
      if (installed_.size() < slot_count_) {
        installed_.push_back({static_cast<std::int32_t>(task->pid()), static_cast<std::int32_t>(fd.fd())});
      }
    }
  }
  add_in_flight(checkpoint);
}

void Plan::add(const Checkpoint& checkpoint, const TaskImage& task, const images::file_entry& entry) {
  const auto slot = static_cast<std::uint32_t>(slot_count_);
  if (!slot_by_id_.try_emplace({static_cast<int>(entry.type()), entry.id()}, slot).second) {
    return;
  }
  slot_by_number_.emplace(entry.id(), slot);
  ++slot_count_;
  const auto& kind = kind_of(entry);
  const auto group_key = kind.group != nullptr ? kind.group(checkpoint, entry) : 0;
  std::size_t index = groups_.size();
  if (group_key != 0) {
    index = group_by_key_.emplace(std::pair{&kind, group_key}, index).first->second;
  }
  if (index == groups_.size()) {
    groups_.push_back({&kind, &maker_of(checkpoint, kind, entry, task), {}, {}});
  }
  groups_[index].entries.push_back(&entry);
  groups_[index].slots.push_back(slot);
  made_by_.emplace_back(&entry, groups_[index].maker);
}

const TaskImage& Plan::maker_of(const Checkpoint& checkpoint, const Kind& kind, const images::file_entry& entry,
                                const TaskImage& first) {
  const auto wanted = kind.maker != nullptr ? kind.maker(checkpoint, entry) : 0;
  if (wanted == 0 || wanted == first.pid()) {
    return first;
  }
  if (tasks_.empty()) {
    for (const auto& task : checkpoint.tasks) {
      tasks_.emplace(task->pid(), task.get());
    }
  }
  const auto found = tasks_.find(wanted);
  return found != tasks_.end() && found->second->alive() && !found->second->shares_files() ? *found->second : first;
}

// What no task has open, but waits in the queue of a socket: whoever fills that queue makes it. Such a file can be a
// socket with a queue itself, and comes behind the others then.
void Plan::add_in_flight(const Checkpoint& checkpoint) {
  for (std::size_t slot = 0; slot < slot_count_; ++slot) {
    const auto [socket, maker] = made_by_[slot];
    for (const auto* packet : checkpoint.queues.of(*socket)) {
      for (const auto id : packet->rights) {
        add(checkpoint, *maker, checkpoint.file(id, fmt::format("a queue of file {}", socket->id())));
      }
    }
  }
}

std::uint32_t Plan::slot_of(const images::fdinfo_entry& fd) const {
  return slot_by_id_.at({static_cast<int>(fd.type()), fd.id()});
}

namespace {

constexpr std::uint32_t cloexec = 1;  // FD_CLOEXEC, as images have it

int flags_of(const images::fdinfo_entry& fd) { return (fd.flags() & cloexec) != 0 ? O_CLOEXEC : 0; }

}  // namespace

// What the task itself has goes to its number at once: a table may be so full that there is no room for all of it
// twice.
void Plan::make(RestoreContext& context, const TaskImage& task) {
  made_.resize(slot_count_);
  std::unordered_map<std::uint32_t, const images::fdinfo_entry*> homes;
  for (const auto& fd : task.fds) {
    homes.try_emplace(slot_of(fd), &fd);
  }
  for (const auto& group : groups_) {
    if (group.maker != &task) {
      continue;
    }
    auto fds = group.kind->make(context, group.entries);
    for (std::size_t i = 0; i < fds.size(); ++i) {
      auto entry = *group.entries[i];
      if (group.kind->owner != nullptr) {
        restore_owner(fds[i].get(), *group.kind->owner(entry));
      }
      made_[group.slots[i]] = context.internal(std::move(fds[i]));
    }
    for (const auto slot : group.slots) {
      if (const auto home = homes.find(slot); home != homes.end()) {
        const auto number = static_cast<int>(home->second->fd());
        check(::dup3(made_[slot].get(), number, flags_of(*home->second)), "install",
              fmt::format("fd {} of {}", number, task.name()));
        made_[slot] = base::Fd(number);
      }
      slots_[slot] = {static_cast<std::int32_t>(task.pid()), made_[slot].get()};
    }
  }
}

base::Fd Plan::fetch_from(const RestoreContext& context, Slot slot, const std::string& what) {
  const base::Fd pidfd(static_cast<int>(check(::syscall(SYS_pidfd_open, slot.pid, 0), "open pidfd for", what)));
  base::Fd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, pidfd.get(), slot.fd, 0)));
  if (const auto* steward = namespaces::Steward::current(); !fd && errno == EPERM && steward != nullptr) {
    fd = steward->fetch(pidfd.get(), slot.fd);  // from who has just changed its user
  }
  check(fd.get(), "fetch descriptor for", what);
  return context.internal(std::move(fd));
}

base::Fd Plan::fetch_slot(const RestoreContext& context, std::uint32_t slot, const std::string& what) const {
  return fetch_from(context, slots_[slot], what);
}

base::Fd Plan::fetch(const RestoreContext& context, std::uint32_t file_id, const std::string& what) const {
  if (const auto slot = slot_by_number_.find(file_id); slot != slot_by_number_.end()) {
    return fetch_slot(context, slot->second, what);
  }
  throw Error("corrupt checkpoint", fmt::format("{}: no task has file {}", what, file_id), 0);
}

namespace {

// A signal of asynchronous input names the descriptor by the number that was current when O_ASYNC was switched on.
void name_in_signals(int fd, const std::string& what) {
  const auto flags = check(::fcntl(fd, F_GETFL), "read the flags of", what);
  if ((flags & O_ASYNC) != 0) {
    check(::fcntl(fd, F_SETFL, flags & ~O_ASYNC), "set the flags of", what);
    check(::fcntl(fd, F_SETFL, flags), "set the flags of", what);
  }
}

}  // namespace

void Plan::collect(RestoreContext& context, const TaskImage& task) {
  std::map<std::uint32_t, base::Fd> fetched;
  for (const auto& fd : task.fds) {
    const auto slot = slot_of(fd);
    const auto what = fmt::format("fd {} of {}", fd.fd(), task.name());
    int source = made_[slot].get();
    if (source < 0) {
      auto& copy = fetched[slot];
      if (!copy) {
        copy = fetch_slot(context, slot, what);
      }
      source = copy.get();
    }
    if (source != static_cast<int>(fd.fd())) {
      check(::dup3(source, static_cast<int>(fd.fd()), flags_of(fd)), "install", what);
    }
    if (made_[slot].get() >= 0) {
      name_in_signals(static_cast<int>(fd.fd()), what);
    }
  }
}

void Plan::finish(RestoreContext& context) {
  for (const auto& group : groups_) {
    if (group.kind->finish == nullptr) {
      continue;
    }
    for (std::size_t i = 0; i < group.entries.size(); ++i) {
      const auto& entry = *group.entries[i];
      if (group.kind->is_late != nullptr && !group.kind->is_late(entry)) {
        continue;
      }
      const auto what = fmt::format("{} (file {})", group.kind->name, entry.id());
      if (group.slots[i] >= installed_.size()) {
        throw Error("not supported by this version", what + ", which only the queue of a socket has", 0);
      }
      const auto fd = fetch_from(context, installed_[group.slots[i]], what);
      group.kind->finish(context, {&entry, fd.get()});
    }
  }
}

void Plan::connect(RestoreContext& context, const TaskImage& task) {
  for (const auto& group : groups_) {
    if (group.maker == &task && group.kind->connect != nullptr) {
      std::vector<Made> made;
      for (std::size_t i = 0; i < group.entries.size(); ++i) {
        made.push_back({group.entries[i], made_[group.slots[i]].get()});
      }
      group.kind->connect(context, task, made);
    }
  }
}

}  // namespace criu::files
