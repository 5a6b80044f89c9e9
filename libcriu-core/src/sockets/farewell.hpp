// SPDX-License-Identifier: LGPL-2.1-only
// The end of a dump whose tree does not go on: its connections must fall silent for good, at the right moment. Earlier,
// and a dump that is killed would leave a tree that cannot talk; later, and the kernel would tell the peers that
// they are closed.
#pragma once

#include <sys/types.h>

#include <memory>
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

// Processes of our own have copies of all sockets, so that these outlive the tree. When the tree is gone they make the
// lock that stays and hold the connections. They also have the socket that owns the lock of the dump, and so see to it
// if the dumping program is killed meanwhile: whether the tree is gone by then decides.
class Farewell {
 public:
  // Neither the tree nor the network notices anything of this. `lock` may be nullptr.
  Farewell(pid_t root, const std::vector<Met>&, NetworkLock* lock, std::string name, std::string owner);
  // Without complete(): nothing happens.
  ~Farewell();
  Farewell(const Farewell&) = delete;
  Farewell& operator=(const Farewell&) = delete;

  // The tree is gone, or stopped.
  void complete();

 private:
  struct Keeper {
    pid_t pid;
    base::Fd line;  // to it, and back
  };
  void start(pid_t root, const Met* begin, const Met* end, bool first);
  [[noreturn]] void keep(int line, int root, const Met* begin, const Met* end, bool first);
  void fall_silent(const std::vector<base::Fd>& sockets, const Met* met, bool first);
  void dismiss(char word);

  NetworkLock* lock_;
  std::string name_, owner_;
  std::vector<Keeper> keepers_;
};

}  // namespace criu::sockets
