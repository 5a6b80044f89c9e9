// SPDX-License-Identifier: LGPL-2.1-only
// The time of a restore in which its connections exist and must not be heard.
#pragma once

#include <fdinfo.pb.h>

#include <memory>
#include <string>

#include "sockets/network_lock.hpp"

namespace criu {

struct RestoreContext;

namespace namespaces {
class RestoredHome;
}

namespace sockets {

class Silence {
 public:
  // Finds the lock that the dump left. Without it (another machine, a firewall that was loaded anew) there is one for
  // the time of the restore; that of the dump stays if the restore fails, so that it can be tried again.
  Silence(RestoreContext&, const namespaces::RestoredHome&);
  ~Silence();
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;

  // The tasks are about to run. Outside, where the lock was made; what the dump left is removed, too.
  void unlock();
  // Then all connections go on.
  void end();

 private:
  void lock(const std::vector<Connection>& ends);
  void make_carried();
  void resume_in(pid_t pid, int fd, const images::inet_sk_entry&);
  void resume(int fd, const images::inet_sk_entry&, const std::string& what);

  RestoreContext& context_;
  const namespaces::RestoredHome& home_;
  NetworkLockMethod method_;
  std::string name_;
  bool left_by_dump_ = false;
  std::unique_ptr<NetworkLock> own_;
};

}  // namespace sockets
}  // namespace criu
