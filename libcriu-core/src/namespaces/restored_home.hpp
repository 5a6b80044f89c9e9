// SPDX-License-Identifier: LGPL-2.1-only
// Making the namespaces that a tree had for itself, and working in them.
#pragma once

#include <memory>
#include <vector>

#include "base/fd.hpp"
#include "namespaces/ipc.hpp"
#include "namespaces/net.hpp"
#include "namespaces/restored_mounts.hpp"
#include "outside.hpp"
#include "restore_context.hpp"

namespace criu::namespaces {

class RestoredHome {
 public:
  // Makes all but that of the pids, which begins with the root, and goes into them.
  RestoredHome(const RestoreContext&, const RestoredIpc&);
  // Goes back.
  ~RestoredHome();
  RestoredHome(const RestoredHome&) = delete;
  RestoredHome& operator=(const RestoredHome&) = delete;

  // Whether the tree had any of its own that scripts want to hear of.
  bool any() const { return own_pids_ || !before_.empty(); }
  bool own_pids() const { return own_pids_; }

  // When the restore can no longer fail.
  void keep() {
    if (network_ != nullptr) {
      network_->keep();
    }
  }

  // While it lives, this process is where it came from.
  class Outside {
   public:
    // `but`: the namespace, by its flag, that it stays in.
    explicit Outside(const RestoredHome& home, int but = 0) : home_(home), but_(but) { home_.leave(but); }
    ~Outside();
    Outside(const Outside&) = delete;
    Outside& operator=(const Outside&) = delete;

   private:
    const RestoredHome& home_;
    const int but_;
  };

  // Its network; nullptr: ours.
  RestoredNet* network() const { return network_.get(); }

  // Its mounts; nullptr: ours.
  const RestoredMounts* mounts() const { return mounts_.get(); }

  // What of the mounts shows pids waits until there are some: in the deputy, while no task of the tree looks at /proc.
  bool has_late_mounts() const { return mounts_ != nullptr && mounts_->has_late(); }
  void make_late_mounts() const;

  // The rest of the restore, once the root is born (and its descendants on their way): among the tree's pids, where
  // this process cannot be, a deputy does it.
  void work_there(pid_t root, const std::function<void()>& work, const outside::Serve&) const;

 private:
  struct Namespace {
    int flag;
    base::Fd before, made;
  };
  void populate(const RestoredIpc&);
  void make_mounts(const RestoredIpc&);
  void leave(int but = 0) const;
  void enter(int but) const;
  // A new one, or the one that is given.
  void make(const char* name, int flag, int given = -1);
  pid_t free_pid() const;

  const RestoreContext& context_;
  bool own_pids_ = false;
  std::unique_ptr<RestoredNet> network_;
  std::unique_ptr<RestoredMounts> mounts_;
  base::Fd outer_root_, outer_directory_;  // a mount namespace is entered at its root
  std::vector<Namespace> before_;          // and after: those that it made
};

}  // namespace criu::namespaces
