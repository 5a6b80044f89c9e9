// SPDX-License-Identifier: GPL-2.0-only
#include "net.hpp"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <vector>

namespace net {

using namespace live;

std::string take(int fd) {
  std::string room(1 << 20, '\0');
  const auto got = ::recv(fd, room.data(), room.size(), MSG_DONTWAIT);
  if (got < 0 && errno == ENOTSOCK) {
    const auto read = ::read(fd, room.data(), room.size());
    room.resize(read < 0 ? 0 : static_cast<std::size_t>(read));
    return room;
  }
  if (got < 0) {
    return errno == EAGAIN ? "nothing" : std::strerror(errno);
  }
  room.resize(static_cast<std::size_t>(got));
  return room;
}

std::string take_all(int fd, std::size_t size) {
  std::string all(size, '\0');
  std::size_t done = 0;
  while (done < size) {
    pollfd poll{fd, POLLIN, 0};
    if (::poll(&poll, 1, 10000) != 1) {
      break;
    }
    const auto got = ::read(fd, all.data() + done, size - done);
    if (got <= 0) {
      break;
    }
    done += static_cast<std::size_t>(got);
  }
  all.resize(done);
  return all;
}

void put(int fd, const std::string& text) {
  for (std::size_t done = 0; done < text.size() || text.empty();) {
    const auto sent = ::write(fd, text.data() + done, text.size() - done);
    REQUIRE(sent >= 0);
    done += static_cast<std::size_t>(sent);
    if (text.empty()) {
      return;
    }
  }
}

int option(int fd, int level, int name) {
  int value = 0;
  socklen_t size = sizeof value;
  return ::getsockopt(fd, level, name, &value, &size) < 0 ? -1 : value;
}

void set_option(int fd, int level, int name, int value) {
  REQUIRE(::setsockopt(fd, level, name, &value, sizeof value) == 0);
}

std::string options_of(int fd) {
  std::string all;
  // SO_ERROR would take it away, SO_INCOMING_CPU and SO_INCOMING_NAPI_ID, SO_COOKIE and SO_MEMINFO are not the
  // socket's choice, and neither is who made it. SO_GET_FILTER has its room in instructions.
  const std::vector<int> not_kept{SO_ERROR, SO_GET_FILTER, SO_INCOMING_CPU, 56, 57, 55, SO_PEERCRED, 77, SO_PEERSEC};
  for (int name = 1; name < 90; ++name) {
    bool skip = false;
    for (const int other : not_kept) {
      skip = skip || other == name;
    }
    if (const int value = skip ? -1 : option(fd, SOL_SOCKET, name); value >= 0) {
      all += std::to_string(name) + "=" + std::to_string(value) + " ";
    }
  }
  return all;
}

namespace {

std::string text_of(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN]{};
  if (address.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(address);
    ::inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    return std::string(text) + ":" + std::to_string(ntohs(in.sin_port));
  }
  const auto& in = reinterpret_cast<const sockaddr_in6&>(address);
  ::inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof text);
  return "[" + std::string(text) + (in.sin6_scope_id != 0 ? "%" + std::to_string(in.sin6_scope_id) : "") +
         "]:" + std::to_string(ntohs(in.sin6_port));
}

}  // namespace

std::string own_address(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  return ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0 ? std::strerror(errno) : text_of(address);
}

std::string peer_address(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  return ::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) < 0 ? std::strerror(errno) : text_of(address);
}

namespace {

socklen_t loopback(int family, int port, sockaddr_storage& address) {
  address.ss_family = static_cast<sa_family_t>(family);
  if (family == AF_INET) {
    auto& in = reinterpret_cast<sockaddr_in&>(address);
    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    in.sin_port = htons(static_cast<std::uint16_t>(port));
    return sizeof in;
  }
  auto& in = reinterpret_cast<sockaddr_in6&>(address);
  in.sin6_addr = in6addr_loopback;
  in.sin6_port = htons(static_cast<std::uint16_t>(port));
  return sizeof in;
}

}  // namespace

int bound(int family, int type, int protocol, int port) {
  const int fd = ::socket(family, type, protocol);
  REQUIRE(fd >= 0);
  sockaddr_storage address{};
  const auto size = loopback(family, port, address);
  REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  return fd;
}

int port_of(int fd) {
  const auto text = own_address(fd);
  return std::atoi(text.c_str() + text.rfind(':') + 1);
}

int connected_to(int port, int family) {
  const int fd = ::socket(family, SOCK_STREAM, 0);
  sockaddr_storage address{};
  const auto size = loopback(family, port, address);
  REQUIRE(fd >= 0 && ::connect(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
  return fd;
}

namespace {

sockaddr_in across(const char* in_a_container, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  ::inet_pton(AF_INET, in_container() ? in_a_container : "127.0.0.1", &address.sin_addr);
  return address;
}

}  // namespace

sockaddr_in tree_address(int port) { return across(container_address, port); }
sockaddr_in outside_address(int port) { return across(bridge_address, port); }

int connected_to(const sockaddr_in& address) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  REQUIRE(fd >= 0 && ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

int bound_anywhere(int type) {
  const int fd = ::socket(AF_INET, type, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  REQUIRE(fd >= 0 && ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

void write_text(const std::string& path, const std::string& text) { std::ofstream(path) << text; }

std::string outside(const std::string& name) { return scratch("outside-" + name); }

int outside_port() { return std::atoi(read_text(outside("port")).c_str()); }

void send_fd(int socket, int fd, const std::string& text) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))]{};
  iovec data{const_cast<char*>(text.data()), text.size()};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  REQUIRE(::sendmsg(socket, &message, 0) == static_cast<ssize_t>(text.size()));
}

Parcel receive_parcel(int socket) {
  alignas(cmsghdr) char control[256]{};
  char room[256];
  iovec data{room, sizeof room};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  Parcel parcel;
  const auto got = ::recvmsg(socket, &message, MSG_DONTWAIT);
  parcel.text = got < 0 ? std::strerror(errno) : std::string(room, static_cast<std::size_t>(got));
  if (got < 0) {
    return parcel;
  }
  for (auto* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_type == SCM_RIGHTS) {
      std::memcpy(&parcel.fd, CMSG_DATA(header), sizeof parcel.fd);
    } else if (header->cmsg_type == SCM_CREDENTIALS) {
      parcel.has_sender = true;
      std::memcpy(&parcel.sender, CMSG_DATA(header), sizeof parcel.sender);
    }
  }
  return parcel;
}

void serve() {
  const auto unix_server = [](int type, const char* name) {
    const int fd = ::socket(AF_UNIX, type, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const auto path = outside(name);
    REQUIRE(fd >= 0 && path.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    // Also for the root of a user namespace, who is nobody here.
    REQUIRE(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 && ::chmod(path.c_str(), 0666) == 0);
    return fd;
  };
  std::vector<pollfd> all;
  const int log = unix_server(SOCK_DGRAM, "log");
  const int stream = unix_server(SOCK_STREAM, "stream");
  const int tcp = bound_anywhere(SOCK_STREAM);
  REQUIRE(::listen(stream, 100) == 0 && ::listen(tcp, 1000) == 0);
  std::ofstream(outside("port")) << port_of(tcp);
  all.push_back({log, POLLIN, 0});
  all.push_back({stream, POLLIN, 0});
  all.push_back({tcp, POLLIN, 0});
  outside_ready();
  std::vector<char> room(1 << 20);
  while (::poll(all.data(), all.size(), -1) > 0) {
    const auto count = all.size();
    for (std::size_t i = 0; i < count; ++i) {
      if (all[i].revents == 0) {
        continue;
      }
      if (i == 1 || i == 2) {
        all.push_back({::accept(all[i].fd, nullptr, nullptr), POLLIN, 0});
        continue;
      }
      const auto got = ::recv(all[i].fd, room.data(), room.size(), 0);
      if (i != 0 && got <= 0) {
        ::close(all[i].fd);
        all[i].fd = -1;
      } else if (const std::string text(room.data(), static_cast<std::size_t>(got)); text.starts_with("call ")) {
        connected_to(tree_address(std::atoi(text.c_str() + 5)));
      } else if (i != 0) {
        put(all[i].fd, text);
      }
    }
  }
}

}  // namespace net
