// SPDX-License-Identifier: LGPL-2.1-only
// The IPC namespace of a tree: its settings and System V objects. A namespace of the tree's own is saved whole and made
// anew; of one that it shares with others only what its tasks have attached is saved.
#pragma once

#include <core.pb.h>
#include <ipc-var.pb.h>

#include "base/fd.hpp"
#include "kernel/procfs.hpp"
#include "namespaces/ipc_segments.hpp"

namespace criu::namespaces {

class Users;

// While it lives this thread is in another IPC namespace.
class InsideIpc {
 public:
  InsideIpc() = default;  // none: it stays where it is
  explicit InsideIpc(int ns);
  ~InsideIpc();
  InsideIpc(InsideIpc&& other) noexcept : before_(std::move(other.before_)) {}
  InsideIpc& operator=(InsideIpc&&) = delete;
  InsideIpc(const InsideIpc&) = delete;
  InsideIpc& operator=(const InsideIpc&) = delete;

 private:
  base::Fd before_;
};

// Once all areas of all tasks are known.
void save_ipc(DumpContext&, memory::ObjectSaver&, const procfs::Task& root, const images::task_kobj_ids_entry& root_ids,
              const images::task_kobj_ids_entry& own_ids);

class RestoredIpc {
 public:
  // Makes the namespace, if the tree had one of its own, and the objects in it.
  explicit RestoredIpc(const RestoreContext&);
  // Who is forked while this lives is born into it.
  InsideIpc enter() const { return own_ ? InsideIpc(own_.get()) : InsideIpc(); }
  // Once all tasks have attached what they had.
  void settle() const;
  // When the restore can no longer fail.
  void keep() { segments_.keep(); }

 private:
  void make(const RestoreContext&, std::uint32_t ns_id);

  const Users* users_;
  base::Fd own_;
  images::ipc_var_entry variables_;
  RestoredSegments segments_;
};

}  // namespace criu::namespaces
