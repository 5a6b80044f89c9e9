// SPDX-License-Identifier: GPL-2.0-only
// What the tests of sockets share.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <string>

#include "../harness/live.hpp"

namespace net {

// Reads what is there, without waiting; "nothing" when nothing is.
std::string take(int fd);
// Waits until all of `size` bytes are read, or the connection ends.
std::string take_all(int fd, std::size_t size);
// Writes all of it; gives up otherwise.
void put(int fd, const std::string& text);

// -1: there is no such option.
int option(int fd, int level, int name);
void set_option(int fd, int level, int name, int value);
// All options that a number tells, one a line, for a comparison.
std::string options_of(int fd);

void write_text(const std::string& path, const std::string& text);

// Addresses as text: "127.0.0.1:80", "[::1]:80"; how the call failed, otherwise.
std::string own_address(int fd);
std::string peer_address(int fd);
// A socket bound to a free port of the loopback device, or to `port`.
int bound(int family, int type, int protocol = 0, int port = 0);
int port_of(int fd);
// A TCP connection to a port of the loopback device.
int connected_to(int port, int family = AF_INET);

// Where the tree is for who is outside, and the other way round: the loopback device, or in a container the two sides
// of its veth.
sockaddr_in tree_address(int port);
sockaddr_in outside_address(int port);
int connected_to(const sockaddr_in& address);
// A socket that can be reached from the other side.
int bound_anywhere(int type);

// Descriptors in flight.
void send_fd(int socket, int fd, const std::string& text);
struct Parcel {
  std::string text;
  int fd = -1;
  bool has_sender = false;
  ucred sender{};
};
Parcel receive_parcel(int socket);

// Servers outside the tree: a datagram socket "log" and an echoing stream socket "stream" by path, and an echoing TCP
// server, which calls a port when it is told to ("call 80"). To be given as Options::outside.
void serve();
std::string outside(const std::string& name);
// Of that TCP server.
int outside_port();

}  // namespace net
