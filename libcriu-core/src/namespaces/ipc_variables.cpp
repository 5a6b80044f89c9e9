// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/ipc_variables.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <sstream>
#include <vector>

#include "base/error.hpp"
#include "base/fd.hpp"
#include "kernel/procfs.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

constexpr const char* queue_bytes = "kernel/msgmnb";

std::string path_of(const char* name) { return fmt::format("/proc/sys/{}", name); }

bool exists(const char* name) { return ::access(path_of(name).c_str(), F_OK) == 0; }

std::vector<std::int64_t> read(const char* name) {
  std::istringstream text(procfs::read_file(AT_FDCWD, path_of(name).c_str(), path_of(name)));
  std::vector<std::int64_t> values;
  // shmmax and shmall may be as large as unsigned numbers get.
  for (std::uint64_t value = 0; !text.eof();) {
    std::string word;
    if (!(text >> word)) {
      break;
    }
    value = word.front() == '-' ? static_cast<std::uint64_t>(std::stoll(word)) : std::stoull(word);
    values.push_back(static_cast<std::int64_t>(value));
  }
  if (values.empty()) {
    throw Error("read", path_of(name), 0, "no number");
  }
  return values;
}

void write(const char* name, const std::string& text) {
  const auto path = path_of(name);
  const base::Fd file(check(::open(path.c_str(), O_WRONLY | O_CLOEXEC), "open", path));
  check(::write(file.get(), text.data(), text.size()), "set", fmt::format("{} to {}", path, text));
}

enum class How { exactly, at_least };

// shmmax and shmall may be as large as unsigned numbers get.
void set(const char* name, std::uint64_t value, How how = How::exactly) {
  const auto now = static_cast<std::uint64_t>(read(name).front());
  if (how == How::exactly ? now != value : now < value) {
    write(name, std::to_string(value));
  }
}

template <typename Set>
void read_next_id(const char* name, Set set_field) {
  if (exists(name)) {
    if (const auto value = read(name).front(); value >= 0) {
      set_field(static_cast<std::uint32_t>(value));
    }
  }
}

void read_queues(images::ipc_var_entry& entry) {
  const bool there = exists("fs/mqueue");
  const auto get = [there](const char* name) {
    return there && exists(name) ? static_cast<std::uint32_t>(read(name).front()) : 0U;
  };
  entry.set_mq_queues_max(get("fs/mqueue/queues_max"));
  entry.set_mq_msg_max(get("fs/mqueue/msg_max"));
  entry.set_mq_msgsize_max(get("fs/mqueue/msgsize_max"));
  if (there) {
    entry.set_mq_msg_default(get("fs/mqueue/msg_default"));
    entry.set_mq_msgsize_default(get("fs/mqueue/msgsize_default"));
  }
}

void write_queues(const images::ipc_var_entry& entry, How how) {
  if (!exists("fs/mqueue")) {
    return;
  }
  // 0 stands for a kernel that had none.
  const auto put = [how](const char* name, std::uint32_t value) {
    if (value != 0) {
      set(name, value, how);
    }
  };
  put("fs/mqueue/queues_max", entry.mq_queues_max());
  put("fs/mqueue/msg_max", entry.mq_msg_max());
  put("fs/mqueue/msgsize_max", entry.mq_msgsize_max());
  put("fs/mqueue/msg_default", entry.mq_msg_default());
  put("fs/mqueue/msgsize_default", entry.mq_msgsize_default());
}

void write_limits(const images::ipc_var_entry& entry, How how) {
  constexpr std::size_t sem_values = 4;
  const auto now = read("kernel/sem");
  std::vector<std::int64_t> sem(entry.sem_ctls().begin(), entry.sem_ctls().end());
  if (sem.size() != sem_values || now.size() != sem_values) {
    throw Error("corrupt image", fmt::format("ipcns-var: {} values of kernel.sem", sem.size()), 0);
  }
  for (std::size_t i = 0; how == How::at_least && i < sem_values; ++i) {
    sem[i] = std::max(sem[i], now[i]);
  }
  if (sem != now) {
    write("kernel/sem", fmt::format("{} {} {} {}", sem[0], sem[1], sem[2], sem[3]));
  }
  set("kernel/msgmax", entry.msg_ctlmax(), how);
  set("kernel/msgmni", entry.msg_ctlmni(), how);
  set("kernel/shmmax", entry.shm_ctlmax(), how);
  set("kernel/shmall", entry.shm_ctlall(), how);
  set("kernel/shmmni", entry.shm_ctlmni(), how);
  write_queues(entry, how);
}

}  // namespace

images::ipc_var_entry read_variables() {
  images::ipc_var_entry entry;
  for (const auto value : read("kernel/sem")) {
    entry.add_sem_ctls(static_cast<std::uint32_t>(value));
  }
  entry.set_msg_ctlmax(static_cast<std::uint32_t>(read("kernel/msgmax").front()));
  entry.set_msg_ctlmnb(queue_limit());
  entry.set_msg_ctlmni(static_cast<std::uint32_t>(read("kernel/msgmni").front()));
  entry.set_auto_msgmni(exists("kernel/auto_msgmni") ? static_cast<std::uint32_t>(read("kernel/auto_msgmni").front())
                                                     : 0U);
  entry.set_shm_ctlmax(static_cast<std::uint64_t>(read("kernel/shmmax").front()));
  entry.set_shm_ctlall(static_cast<std::uint64_t>(read("kernel/shmall").front()));
  entry.set_shm_ctlmni(static_cast<std::uint32_t>(read("kernel/shmmni").front()));
  entry.set_shm_rmid_forced(static_cast<std::uint32_t>(read("kernel/shm_rmid_forced").front()));
  read_queues(entry);
  read_next_id("kernel/msg_next_id", [&](std::uint32_t id) { entry.set_msg_next_id(id); });
  read_next_id("kernel/sem_next_id", [&](std::uint32_t id) { entry.set_sem_next_id(id); });
  read_next_id("kernel/shm_next_id", [&](std::uint32_t id) { entry.set_shm_next_id(id); });
  return entry;
}

void raise_limits(const images::ipc_var_entry& entry) { write_limits(entry, How::at_least); }

void write_variables(const images::ipc_var_entry& entry) {
  write_limits(entry, How::exactly);
  set_queue_limit(entry.msg_ctlmnb());
  if (entry.has_msg_next_id()) {
    set("kernel/msg_next_id", entry.msg_next_id());
  }
  if (entry.has_sem_next_id()) {
    set("kernel/sem_next_id", entry.sem_next_id());
  }
  if (entry.has_shm_next_id()) {
    set("kernel/shm_next_id", entry.shm_next_id());
  }
}

void force_removal(const images::ipc_var_entry& entry) { set("kernel/shm_rmid_forced", entry.shm_rmid_forced()); }

std::uint32_t queue_limit() { return static_cast<std::uint32_t>(read(queue_bytes).front()); }

void set_queue_limit(std::uint32_t bytes) { set(queue_bytes, bytes); }

}  // namespace criu::namespaces
