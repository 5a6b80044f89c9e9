// SPDX-License-Identifier: GPL-2.0-only
// Two hosts on one wire, in network namespaces of this process, which go away with it.
#pragma once

#include <netinet/in.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/fd.hpp"

namespace lab {

class Namespace {
 public:
  Namespace();
  // Runs this in the namespace, on a thread of its own; exceptions come back.
  void run(const std::function<void()>& call) const;
  void shell(const std::string& command) const;  // must succeed
  std::string path() const;                      // for `ip link set ... netns`

 private:
  base::Fd fd_;
};

// What a family's connections are called here.
enum class Family { v4, v6, mapped, link_local };
inline constexpr Family families[] = {Family::v4, Family::v6, Family::mapped, Family::link_local};
std::string name(Family family);

struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};

struct Wire {
  Namespace host, peer;
  Wire();
  Address host_address(Family family, in_port_t port) const;
  Address peer_address(Family family, in_port_t port) const;
  std::string host_link_local, peer_link_local;
};

// Drops all that comes into a namespace, as a caller of the library would, and lets the library's own packets pass.
class Silence {
 public:
  explicit Silence(const Namespace& where);
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;
  ~Silence() { lift(); }
  void lift();

 private:
  const Namespace& where_;
  bool there_ = true;
};

// Counts the TCP packets that a namespace receives over the wire.
class Sniffer {
 public:
  explicit Sniffer(const Namespace& where);
  int packets();  // since the last call
  // Waits as long for a packet; false: one came since the last call.
  bool silent_for(std::chrono::milliseconds time);
  int resets() const { return resets_; }

 private:
  void drain();

  base::Fd fd_;
  int packets_ = 0, resets_ = 0;
};

// A connection from `peer` to `host`, or the other way round.
struct Pair {
  base::Fd listener, host, peer;
};
Pair connect(const Wire& wire, Family family, bool from_host = false);

base::Fd open_socket(const Namespace& where, int family);
unsigned state_of(int fd);
void wait_for_state(int fd, unsigned state);
void eventually(const std::function<bool()>& condition, const char* what);

// A stream in which every byte knows its place.
std::string stream(std::size_t from, std::size_t size, unsigned salt);
void send_all(int fd, const std::string& bytes);
// Both return the place in the stream up to which it was taken.
std::size_t send_until_full(int fd, unsigned salt, std::size_t from = 0);
std::size_t send_until_window_closes(int fd, unsigned salt);
std::string receive(int fd, std::size_t size);
// What is left until the end; throws when the end is an error.
std::string receive_to_end(int fd);

}  // namespace lab
