// SPDX-License-Identifier: LGPL-2.1-only
// What each task shares with which: small numbers for kernel objects, equal exactly when the objects are the same.
#pragma once

#include <core.pb.h>
#include <sys/types.h>

#include <cstdint>
#include <map>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/error.hpp"
#include "kernel/procfs.hpp"
#include "namespaces/home.hpp"

namespace criu::task {

class Ids {
 public:
  // Numbers this process first: the format wants it as the reference that tells which namespaces are the tree's own.
  // `ours` are the namespaces in which it was started.
  explicit Ids(const namespaces::Links& ours);
  const images::task_kobj_ids_entry& own() const { return own_; }
  const std::map<std::string, std::uint32_t>& namespaces() const { return namespaces_; }
  images::task_kobj_ids_entry of(pid_t pid, const procfs::Task& task);
  // Of a namespace, by what its link says.
  std::uint32_t number_of(const std::string& link) {
    return namespaces_.emplace(link, static_cast<std::uint32_t>(namespaces_.size()) + 1).first->second;
  }
  // Of the first task that was asked for, the root of the tree.
  const images::task_kobj_ids_entry& root() const { return root_; }

  // What a task that was numbered has in common with one numbered before it, and with which; nothing: an empty text.
  std::string in_common(pid_t pid, pid_t parent) const;

 private:
  // The objects of one kind that were met, each by the task that was the first to have it, in the kernel's order.
  struct Objects {
    int type;
    std::vector<std::pair<pid_t, std::uint32_t>> known{};
  };
  struct Owners {
    pid_t vm, files, fs, sighand;
  };

  // Its number, and in `owner` the task that was the first to have it.
  static std::uint32_t object_id(Objects& objects, pid_t pid, pid_t& owner);
  void put_objects(pid_t pid, images::task_kobj_ids_entry&);
  void put_namespaces(const namespaces::Links&, images::task_kobj_ids_entry&);

  Objects vm_, files_, fs_, sighand_;
  std::unordered_map<pid_t, Owners> owners_;         // each question costs a system call
  std::map<std::string, std::uint32_t> namespaces_;  // by link text: "net:[4026531840]"
  images::task_kobj_ids_entry own_, root_;
};

bool is_known_policy(int policy);

// What a thread has apart from its process that it should share; nothing: an empty text.
std::string apart_from_process(pid_t pid, pid_t tid);

// Obstacles that a dump and a look at a running tree word alike.
// Of which kinds of namespaces it has its own where all of the tree has to be in one; nothing: an empty text. A time
// namespace is a task's own; mount namespaces may be several where the root has one that is not ours.
std::string namespaces_apart(const images::task_kobj_ids_entry& task, const images::task_kobj_ids_entry& root,
                             const images::task_kobj_ids_entry& own);
base::Error other_namespaces(const std::string& task, const std::string& which);
base::Error is_32_bit(const std::string& task);
base::Error leader_ended(const std::string& task);
base::Error unknown_policy(pid_t tid, int policy);
base::Error shares(const std::string& task, const std::string& what);
base::Error apart(const std::string& task, pid_t tid, const std::string& what);
base::Error no_session_leader(const std::string& task, pid_t session);

}  // namespace criu::task
