// SPDX-License-Identifier: LGPL-2.1-only
// What segments, semaphore sets and message queues of System V have in common.
#pragma once

#include <ipc-desc.pb.h>
#include <sys/ipc.h>

#include <cstdint>
#include <string>
#include <utility>

#include "base/error.hpp"
#include "namespaces/user.hpp"

namespace criu::namespaces {

// The ids in it as they are to the tree.
void save_desc(const Users&, const ipc_perm& perm, int id, images::ipc_desc_entry& desc);

// "segment 3 (key 0x1234)", for messages.
std::string name_object(const char* kind, const images::ipc_desc_entry& desc);

// An id, or a mode, that no kernel gives out is an Error.
void check_desc(const images::ipc_desc_entry& desc, const char* image);

// Whether what has the id now is what had it.
bool is_same(const ipc_perm& perm, const images::ipc_desc_entry& desc);

// The next object of this kind ("shm", "sem", "msg") in this process's namespace gets this id, if it is free.
void set_next_id(const char* kind, std::uint32_t id);

// While it lives this thread has other effective ids, so that what it makes has another creator.
class Creator {
 public:
  explicit Creator(const images::ipc_desc_entry& desc);
  ~Creator();
  Creator(const Creator&) = delete;
  Creator& operator=(const Creator&) = delete;

 private:
  std::uint32_t uid_, gid_;
  bool changed_;
};

// Makes an object by `create`, with its old id and creator; `remove` takes away one that got another id.
template <typename Create, typename Remove>
int make_object(const char* kind, const images::ipc_desc_entry& desc, const std::string& what, Create create,
                Remove remove) {
  set_next_id(kind, desc.id());
  const int id = [&] {
    const Creator creator(desc);
    return create(static_cast<key_t>(desc.key()), static_cast<int>(desc.mode() & 0777) | IPC_CREAT | IPC_EXCL);
  }();
  if (id < 0 && errno == EEXIST) {
    throw base::Error("make", what, 0, "another one has its key in this IPC namespace");
  }
  base::check(id, "make", what);
  if (static_cast<std::uint32_t>(id) != desc.id()) {
    remove(id);
    throw base::Error("make", what, 0, "its id is taken in this IPC namespace");
  }
  return id;
}

// The owner and mode of an object whose creator is somebody else; `perm` is what IPC_STAT told of it. Whether there is
// anything to set.
inline bool set_owner(ipc_perm& perm, const images::ipc_desc_entry& desc) {
  const bool differs = perm.uid != desc.uid() || perm.gid != desc.gid();
  perm.uid = desc.uid();
  perm.gid = desc.gid();
  return differs;
}

}  // namespace criu::namespaces
