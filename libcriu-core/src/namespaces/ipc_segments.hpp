// SPDX-License-Identifier: LGPL-2.1-only
// System V shared memory segments.
//
// A tree with an IPC namespace of its own takes all of the namespace along. In a namespace that it shares with others,
// the segments that its tasks have attached are saved too, marked as such. There a restore finds them as they were
// left, or used by others meanwhile, or gone: what others use is never written to.
#pragma once

#include <ipc-shm.pb.h>

#include <cstdint>
#include <vector>

#include "dump_context.hpp"
#include "image/directory.hpp"

namespace criu {
struct RestoreContext;

namespace memory {
class ObjectSaver;
}

namespace namespaces {

// Those of the namespace that this process is in: all when it is the tree's own, else those that it has attached.
void save_segments(DumpContext&, memory::ObjectSaver&, std::uint32_t ns_id, bool own);

class RestoredSegments {
 public:
  // Makes them in the namespace that this process is in, or takes up what is there.
  void restore(const RestoreContext&, std::uint32_t ns_id, bool own);
  // Removes, now that it is attached, what was removed while it was.
  void remove_removed() const;
  // What was made in a namespace of others is to stay.
  void keep() { made_.clear(); }
  RestoredSegments() = default;
  ~RestoredSegments();
  RestoredSegments(const RestoredSegments&) = delete;
  RestoredSegments& operator=(const RestoredSegments&) = delete;

 private:
  void take_up(const RestoreContext&, const images::ipc_shm_entry&);
  void make(const RestoreContext&, const images::ipc_shm_entry&, image::Reader&, bool own);

  std::vector<int> made_;     // in a namespace of others
  std::vector<int> removed_;  // to be
};

}  // namespace namespaces
}  // namespace criu
