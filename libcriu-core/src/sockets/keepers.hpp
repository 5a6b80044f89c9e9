// SPDX-License-Identifier: LGPL-2.1-only
// What a dump does to connections must not be what is left of them when the dumping program is killed. So before the
// first of them is touched there are processes of our own that have copies of the sockets and of what owns the network
// lock, and that hear of the program's death a little before the kernel lets its tasks run.
//
// They put back the connection that was being copied. And the end of a dump whose tree does not go on, when the
// connections must fall silent for good, has no moment that is too early or too late: earlier, and a dump that is
// killed would leave a tree that cannot talk; later, and the kernel would tell the peers that they are closed. Whether
// the tree is gone decides.
#pragma once

#include <sys/types.h>

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "sockets/tcp_saved.hpp"  // before <signal.h>, where a name of the images is a macro

namespace criu::sockets {

// A connection, and where it is open.
struct Met {
  pid_t pid;
  int fd;
  std::string what;
};

class Keepers {
 public:
  // `lock` may be nullptr. `silent`: the tree is to be killed, so that its connections end without a packet; one that
  // is stopped keeps its sockets. `name` and `owner` are those of the lock that stays.
  Keepers(pid_t root, NetworkLock* lock, bool silent, std::string name, std::string owner);
  // Without complete(): nothing happens.
  ~Keepers();
  Keepers(const Keepers&) = delete;
  Keepers& operator=(const Keepers&) = delete;

  // One more process, for these connections; a copy of each is in `sockets`.
  void add(std::span<const Met>, const std::vector<base::Fd>& sockets);

  // As long as this lives, one of the connections that were added last is being copied. The options are those that a
  // look into it changes.
  class Copying {
   public:
    Copying(Keepers&, std::size_t index, const images::sk_opts_entry&);
    ~Copying();
    Copying(const Copying&) = delete;
    Copying& operator=(const Copying&) = delete;

   private:
    Keepers& keepers_;
  };

  // From now on the tree is killed, or stopped, at any moment.
  void at_the_end();
  // It is gone, or stopped.
  void complete();

 private:
  struct Line;
  struct Keeper;
  [[noreturn]] void keep(Line& line, std::span<const Met>, const std::vector<base::Fd>& sockets);
  void take_over(const Line& line, std::span<const Met>, const std::vector<base::Fd>& sockets);
  void fall_silent(std::span<const Met>, const std::vector<base::Fd>& sockets);
  void dismiss(bool gone);

  pid_t root_;
  base::Fd tree_;  // its pidfd
  NetworkLock* lock_;
  bool silent_;
  std::string name_, owner_;
  std::vector<Keeper> keepers_;
};

}  // namespace criu::sockets
