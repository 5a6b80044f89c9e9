// SPDX-License-Identifier: GPL-2.0-only
// UNIX sockets: names, peers, queues, connections that wait.
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "net.hpp"

using namespace live;
using namespace net;

namespace {

int unix_socket(int type = SOCK_STREAM) {
  const int fd = ::socket(AF_UNIX, type, 0);
  REQUIRE(fd >= 0);
  return fd;
}

struct Address {
  sockaddr_un un{};
  socklen_t size = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&un); }
};

// A name that begins with '@' is abstract.
Address address(const std::string& name) {
  Address a;
  a.un.sun_family = AF_UNIX;
  REQUIRE(name.size() < sizeof a.un.sun_path);
  std::memcpy(a.un.sun_path, name.data(), name.size());
  a.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (name[0] == '@' ? 0 : 1));
  if (name[0] == '@') {
    a.un.sun_path[0] = '\0';
  }
  return a;
}

void bind_to(int fd, const std::string& name) {
  const auto a = address(name);
  REQUIRE(::bind(fd, a.get(), a.size) == 0);
}

int try_connect(int fd, const std::string& name) {
  const auto a = address(name);
  return ::connect(fd, a.get(), a.size);
}

std::string name_from(const sockaddr_un& un, socklen_t size) {
  if (size <= offsetof(sockaddr_un, sun_path)) {
    return "";
  }
  if (un.sun_path[0] == '\0') {
    return "@" + std::string(un.sun_path + 1, size - offsetof(sockaddr_un, sun_path) - 1);
  }
  return un.sun_path;
}

std::string own_name(int fd) {
  sockaddr_un un{};
  socklen_t size = sizeof un;
  REQUIRE(::getsockname(fd, reinterpret_cast<sockaddr*>(&un), &size) == 0);
  return name_from(un, size);
}

std::string peer_name(int fd) {
  sockaddr_un un{};
  socklen_t size = sizeof un;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&un), &size) < 0) {
    return std::strerror(errno);
  }
  return name_from(un, size);
}

std::string receive_from(int fd, std::string& from) {
  char room[1024];
  sockaddr_un un{};
  socklen_t size = sizeof un;
  const auto got = ::recvfrom(fd, room, sizeof room, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&un), &size);
  from = name_from(un, size);
  return got < 0 ? std::strerror(errno) : std::string(room, static_cast<std::size_t>(got));
}

}  // namespace

LIVE_TEST("unix: a pair of each type with data both ways") {
  for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, type, 0, ends) == 0);
    put(ends[0], "there");
    put(ends[1], "and back");
    put(ends[1], "twice");
  }
  checkpoint_here();
  for (int fd = 0, seen = 0; seen < 3; fd += 2) {
    int type = 0;
    socklen_t size = sizeof type;
    if (::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0) {
      --fd;
      continue;
    }
    ++seen;
    CHECK_EQ(take(fd + 1), "there");
    CHECK_EQ(take(fd), type == SOCK_STREAM ? "and backtwice" : "and back");
    CHECK_EQ(take(fd), type == SOCK_STREAM ? "nothing" : "twice");
    put(fd, "again");
    CHECK_EQ(take(fd + 1), "again");
  }
}

LIVE_TEST("unix: packets keep their bounds, empty ones too") {
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, type, 0, ends) == 0);
    REQUIRE(::dup2(ends[0], 100 + 2 * type) >= 0 && ::dup2(ends[1], 101 + 2 * type) >= 0);
    put(ends[1], "one");
    put(ends[1], "");
    put(ends[1], std::string(100000, 'x'));
    put(ends[1], "");
  }
  checkpoint_here();
  for (const int type : {SOCK_DGRAM, SOCK_SEQPACKET}) {
    const int fd = 100 + 2 * type;
    CHECK_EQ(take(fd), "one");
    CHECK_EQ(take(fd), "");
    CHECK_EQ(take(fd).size(), 100000U);
    CHECK_EQ(take(fd), "");
    CHECK_EQ(take(fd), "nothing");
  }
}

LIVE_TEST("unix: a large queue of a stream") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
  const int ample = 1 << 20;
  // In a user namespace nobody may have more room than all.
  REQUIRE(::setsockopt(ends[0], SOL_SOCKET, in_user_namespace() ? SO_SNDBUF : SO_SNDBUFFORCE, &ample, sizeof ample) ==
          0);
  std::string sent;
  for (std::string block(8192, 'a'); ::write(ends[0], block.data(), block.size()) == 8192; ++block[0]) {
    sent += block;
  }
  REQUIRE(sent.size() > 500000);
  checkpoint_here();
  std::string got;
  for (std::string part; (part = take(ends[1])) != "nothing";) {
    got += part;
  }
  CHECK(got.compare(0, sent.size(), sent) == 0);
  CHECK_EQ(option(ends[0], SOL_SOCKET, SO_SNDBUF), 2 << 20);
}

LIVE_TEST("unix: bound by path, with a listener, a connection, and its permissions") {
  const int listener = unix_socket();
  bind_to(listener, scratch("sock"));
  REQUIRE(::chmod(scratch("sock").c_str(), 0640) == 0 && ::chown(scratch("sock").c_str(), 12, 34) == 0);
  REQUIRE(::listen(listener, 7) == 0);
  const int client = unix_socket();
  REQUIRE(try_connect(client, scratch("sock")) == 0);
  const int server = ::accept(listener, nullptr, nullptr);
  REQUIRE(server >= 0);
  put(client, "request");
  checkpoint_here();
  CHECK_EQ(own_name(listener), scratch("sock"));
  CHECK_EQ(own_name(server), scratch("sock"));
  CHECK_EQ(peer_name(client), scratch("sock"));
  CHECK_EQ(take(server), "request");
  put(server, "answer");
  CHECK_EQ(take(client), "answer");
  struct stat stat {};
  CHECK_EQ(::stat(scratch("sock").c_str(), &stat), 0);
  CHECK_EQ(stat.st_mode & 07777, 0640U);
  CHECK_EQ(stat.st_uid, 12U);
  CHECK_EQ(stat.st_gid, 34U);
  const int later = unix_socket();
  CHECK_EQ(try_connect(later, scratch("sock")), 0);
  CHECK(::accept(listener, nullptr, nullptr) >= 0);
}

LIVE_TEST("unix: abstract names") {
  const int listener = unix_socket(SOCK_SEQPACKET);
  const auto name = "@criu-live-" + std::to_string(::getpid());
  bind_to(listener, name);
  REQUIRE(::listen(listener, 3) == 0);
  const int client = unix_socket(SOCK_SEQPACKET);
  REQUIRE(try_connect(client, name) == 0);
  const int server = ::accept(listener, nullptr, nullptr);
  REQUIRE(server >= 0);
  checkpoint_here();
  CHECK_EQ(own_name(listener), name);
  CHECK_EQ(peer_name(client), name);
  put(client, "x");
  CHECK_EQ(take(server), "x");
  const int later = unix_socket(SOCK_SEQPACKET);
  CHECK_EQ(try_connect(later, name), 0);
}

LIVE_TEST("unix: a relative name") {
  REQUIRE(::mkdir(scratch("inner").c_str(), 0700) == 0 && ::chdir(scratch("inner").c_str()) == 0);
  const int listener = unix_socket();
  bind_to(listener, "sock");
  REQUIRE(::listen(listener, 3) == 0);
  REQUIRE(::chdir("/") == 0);
  checkpoint_here();
  CHECK_EQ(own_name(listener), "sock");
  const int client = unix_socket();
  CHECK_EQ(try_connect(client, scratch("inner/sock")), 0);
  CHECK_EQ(peer_name(client), "sock");
}

LIVE_TEST("unix: a deleted path") {
  const int receiver = unix_socket(SOCK_DGRAM);
  bind_to(receiver, scratch("gone"));
  const int sender = unix_socket(SOCK_DGRAM);
  REQUIRE(try_connect(sender, scratch("gone")) == 0);
  REQUIRE(::unlink(scratch("gone").c_str()) == 0);
  put(sender, "before");
  checkpoint_here();
  CHECK_EQ(own_name(receiver), scratch("gone"));
  CHECK_EQ(peer_name(sender), scratch("gone"));
  CHECK_EQ(take(receiver), "before");
  put(sender, "after");
  CHECK_EQ(take(receiver), "after");
  CHECK_EQ(::access(scratch("gone").c_str(), F_OK), -1);
}

LIVE_TEST("unix: in a directory renamed since") {
  REQUIRE(::mkdir(scratch("old").c_str(), 0700) == 0);
  const int listener = unix_socket();
  bind_to(listener, scratch("old/sock"));
  REQUIRE(::listen(listener, 3) == 0);
  REQUIRE(::rename(scratch("old").c_str(), scratch("new").c_str()) == 0);
  checkpoint_here();
  CHECK_EQ(own_name(listener), scratch("old/sock"));
  CHECK_EQ(::access(scratch("old").c_str(), F_OK), -1);
  const int client = unix_socket();
  CHECK_EQ(try_connect(client, scratch("new/sock")), 0);
}

LIVE_TEST("unix: connections that wait to be accepted") {
  const int listener = unix_socket();
  bind_to(listener, scratch("sock"));
  REQUIRE(::listen(listener, 8) == 0);
  int clients[3];
  for (int& client : clients) {
    client = unix_socket();
    REQUIRE(try_connect(client, scratch("sock")) == 0);
  }
  checkpoint_here();
  for (const int client : clients) {
    put(client, "hello");
  }
  for (int i = 0; i < 3; ++i) {
    const int server = ::accept(listener, nullptr, nullptr);
    CHECK(server >= 0);
    CHECK_EQ(take(server), "hello");
    put(server, "welcome");
  }
  for (const int client : clients) {
    CHECK_EQ(take(client), "welcome");
  }
}

LIVE_TEST("unix: a waiting connection with data is named", {.dump_fails = "whose client has sent data already"}) {
  const int listener = unix_socket();
  bind_to(listener, scratch("sock"));
  REQUIRE(::listen(listener, 8) == 0);
  const int client = unix_socket();
  REQUIRE(try_connect(client, scratch("sock")) == 0);
  put(client, "hello");
  checkpoint_here();
  const int server = ::accept(listener, nullptr, nullptr);
  CHECK_EQ(take(server), "hello");
}

LIVE_TEST("unix: several senders to one receiver, each with its name") {
  const int receiver = unix_socket(SOCK_DGRAM);
  bind_to(receiver, scratch("receiver"));
  int senders[3];
  for (int i = 0; i < 3; ++i) {
    senders[i] = unix_socket(SOCK_DGRAM);
    if (i < 2) {
      bind_to(senders[i], scratch("sender" + std::to_string(i)));
    }
    REQUIRE(try_connect(senders[i], scratch("receiver")) == 0);
    put(senders[i], "from " + std::to_string(i));
  }
  const int passing = unix_socket(SOCK_DGRAM);
  bind_to(passing, scratch("passing"));
  const auto to = address(scratch("receiver"));
  REQUIRE(::sendto(passing, "bye", 3, 0, to.get(), to.size) == 3);
  ::close(passing);
  REQUIRE(::unlink(scratch("passing").c_str()) == 0);
  checkpoint_here();
  std::string from;
  CHECK_EQ(receive_from(receiver, from), "from 0");
  CHECK_EQ(from, scratch("sender0"));
  CHECK_EQ(receive_from(receiver, from), "from 1");
  CHECK_EQ(from, scratch("sender1"));
  CHECK_EQ(receive_from(receiver, from), "from 2");
  CHECK_EQ(from, "");
  CHECK_EQ(receive_from(receiver, from), "bye");
  CHECK_EQ(from, scratch("passing"));
  put(senders[2], "more");
  CHECK_EQ(take(receiver), "more");
}

LIVE_TEST("unix: a chain of datagram sockets, and one connected to itself") {
  int chain[4];
  for (int i = 3; i >= 0; --i) {
    chain[i] = unix_socket(SOCK_DGRAM);
    bind_to(chain[i], scratch("link" + std::to_string(i)));
  }
  for (int i = 0; i < 3; ++i) {
    REQUIRE(try_connect(chain[i], scratch("link" + std::to_string(i + 1))) == 0);
  }
  const int self = unix_socket(SOCK_DGRAM);
  bind_to(self, scratch("self"));
  REQUIRE(try_connect(self, scratch("self")) == 0);
  put(self, "to me");
  checkpoint_here();
  for (int i = 0; i < 3; ++i) {
    CHECK_EQ(peer_name(chain[i]), scratch("link" + std::to_string(i + 1)));
  }
  CHECK_EQ(::send(chain[0], "x", 1, 0), -1);  // its peer has another
  CHECK_EQ(errno, EPERM);
  put(chain[2], "to the end");
  CHECK_EQ(take(chain[3]), "to the end");
  CHECK_EQ(take(self), "to me");
  put(self, "again");
  CHECK_EQ(take(self), "again");
}

LIVE_TEST("unix: two datagram sockets with each other, a third to one") {
  int fds[3];
  for (int i = 0; i < 3; ++i) {
    fds[i] = unix_socket(SOCK_DGRAM);
    bind_to(fds[i], scratch("s" + std::to_string(i)));
  }
  REQUIRE(try_connect(fds[2], scratch("s0")) == 0);
  REQUIRE(try_connect(fds[0], scratch("s1")) == 0 && try_connect(fds[1], scratch("s0")) == 0);
  put(fds[0], "to 1");
  checkpoint_here();
  CHECK_EQ(take(fds[1]), "to 1");
  put(fds[1], "to 0");
  CHECK_EQ(take(fds[0]), "to 0");
  CHECK_EQ(peer_name(fds[2]), scratch("s0"));
}

LIVE_TEST("unix: one end of a pair turned to another socket") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
  const int other = unix_socket(SOCK_DGRAM);
  bind_to(other, scratch("other"));
  REQUIRE(try_connect(ends[1], scratch("other")) == 0);
  int loose[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM, 0, loose) == 0);
  const sockaddr nobody{AF_UNSPEC, {}};
  REQUIRE(::connect(loose[1], &nobody, sizeof nobody) == 0);
  checkpoint_here();
  put(ends[1], "x");
  CHECK_EQ(take(other), "x");
  put(loose[0], "still there");
  CHECK_EQ(take(loose[1]), "still there");
  CHECK_EQ(::send(loose[1], "x", 1, MSG_NOSIGNAL), -1);
  CHECK_EQ(errno, ENOTCONN);
}

LIVE_TEST("unix: a peer that is gone") {
  int stream[2];
  int packets[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, stream) == 0 && ::socketpair(AF_UNIX, SOCK_DGRAM, 0, packets) == 0);
  put(stream[1], "last words");
  put(packets[1], "last packet");
  ::close(stream[1]);
  ::close(packets[1]);
  checkpoint_here();
  CHECK_EQ(take(stream[0]), "last words");
  CHECK_EQ(take(stream[0]), "");
  CHECK_EQ(::send(stream[0], "x", 1, MSG_NOSIGNAL), -1);
  CHECK_EQ(errno, EPIPE);
  CHECK_EQ(take(packets[0]), "last packet");
  CHECK_EQ(::send(packets[0], "x", 1, MSG_NOSIGNAL), -1);
  CHECK_EQ(errno, ECONNREFUSED);
}

LIVE_TEST("unix: ends that are shut down") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  put(ends[0], "then no more");
  REQUIRE(::shutdown(ends[0], SHUT_WR) == 0);
  checkpoint_here();
  CHECK_EQ(take(ends[1]), "then no more");
  CHECK_EQ(take(ends[1]), "");
  put(ends[1], "back");
  CHECK_EQ(take(ends[0]), "back");
  CHECK_EQ(::send(ends[0], "x", 1, MSG_NOSIGNAL), -1);
}

LIVE_TEST("unix: descriptors in flight") {
  int ends[2];
  int pipe[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 && ::pipe(pipe) == 0);
  put(pipe[1], "in the pipe");
  const int file = ::open(scratch("file").c_str(), O_RDWR | O_CREAT, 0600);
  REQUIRE(file >= 0);
  put(file, "0123456789");
  REQUIRE(::lseek(file, 4, SEEK_SET) == 4);
  put(ends[0], "plain");
  send_fd(ends[0], pipe[0], "pipe");
  send_fd(ends[0], file, "file");
  ::close(pipe[0]);  // now only in the queue
  checkpoint_here();
  const auto first = receive_parcel(ends[1]);
  CHECK_EQ(first.text, "plainpipe");
  CHECK_EQ(take(first.fd), "in the pipe");
  const auto second = receive_parcel(ends[1]);
  CHECK_EQ(second.text, "file");
  CHECK_EQ(::lseek(second.fd, 2, SEEK_CUR), 6);
  CHECK_EQ(::lseek(file, 0, SEEK_CUR), 6);  // the same open file
}

LIVE_TEST("unix: a socket inside its own queue, and one that only a queue has, with a queue of its own") {
  int own[2];
  int outer[2];
  int inner[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM, 0, own) == 0 && ::socketpair(AF_UNIX, SOCK_STREAM, 0, outer) == 0 &&
          ::socketpair(AF_UNIX, SOCK_STREAM, 0, inner) == 0);
  send_fd(own[1], own[0], "me");
  const int null = ::open("/dev/null", O_RDONLY);
  REQUIRE(null >= 0);
  send_fd(inner[1], null, "null");
  ::close(null);
  send_fd(outer[1], inner[0], "inner");
  ::close(inner[0]);
  checkpoint_here();
  const auto me = receive_parcel(own[0]);
  CHECK_EQ(me.text, "me");
  put(own[1], "x");
  CHECK_EQ(take(me.fd), "x");
  const auto carried = receive_parcel(outer[0]);
  CHECK_EQ(carried.text, "inner");
  put(inner[1], " and more");
  const auto deep = receive_parcel(carried.fd);
  CHECK_EQ(deep.text, "null");
  CHECK(deep.fd >= 0);
  CHECK_EQ(take(carried.fd), " and more");
}

LIVE_TEST("unix: credentials come with packets, also those that waited") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
  const int on = 1;
  REQUIRE(::setsockopt(ends[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof on) == 0);
  Child child([&] {
    put(ends[1], "from the child");
    checkpoint_here();
  });
  checkpoint_here();
  const auto parcel = receive_parcel(ends[0]);
  CHECK_EQ(parcel.text, "from the child");
  CHECK(parcel.has_sender);
  CHECK_EQ(parcel.sender.pid, child.pid());
  CHECK_EQ(option(ends[0], SOL_SOCKET, SO_PASSCRED), 1);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("unix: ends in different tasks") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
  Child child([&] {
    ::close(ends[0]);
    checkpoint_here();
    CHECK_EQ(take(ends[1]), "to the child");
    put(ends[1], "to the parent");
  });
  ::close(ends[1]);
  put(ends[0], "to the child");
  checkpoint_here();
  CHECK_EQ(child.finish(), 0);
  CHECK_EQ(take(ends[0]), "to the parent");
}

namespace {

constexpr uid_t some_user = 1234;
constexpr gid_t some_group = 567;

std::string peer_of(int fd) {
  ucred peer{};
  socklen_t size = sizeof peer;
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0) {
    return std::strerror(errno);
  }
  gid_t groups[8]{};
  size = sizeof groups;
  std::string text = std::to_string(peer.pid) + ":" + std::to_string(static_cast<int>(peer.uid)) + ":" +
                     std::to_string(static_cast<int>(peer.gid));
  if (::getsockopt(fd, SOL_SOCKET, 59, groups, &size) == 0) {  // SO_PEERGROUPS
    for (std::size_t i = 0; i < size / sizeof(gid_t); ++i) {
      text += " " + std::to_string(groups[i]);
    }
  }
  return text;
}

std::string without_pid(const std::string& peer) { return peer.substr(peer.find(':')); }

// As somebody else, and back.
template <typename Call>
void as_some_user(Call call) {
  const gid_t groups[] = {88, 99};
  REQUIRE(::setgroups(2, groups) == 0 && ::setegid(some_group) == 0 && ::seteuid(some_user) == 0);
  call();
  REQUIRE(::seteuid(0) == 0 && ::setegid(0) == 0 && ::setgroups(0, nullptr) == 0);
}

}  // namespace

LIVE_TEST("unix: pairs tell who made them") {
  std::vector<int> ends;
  for (const int type : {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET}) {
    int pair[2];
    as_some_user([&] { REQUIRE(::socketpair(AF_UNIX, type, 0, pair) == 0); });
    ends.insert(ends.end(), pair, pair + 2);
  }
  int of_child[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, of_child) == 0);
  Child child([&] {
    // Made by the child, and also open in the parent, which is asked first for what it has.
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    send_fd(of_child[1], pair[0], "pair");
    ::close(pair[0]);
    checkpoint_here();
    CHECK_EQ(peer_of(pair[1]), std::to_string(::getpid()) + ":0:0");
  });
  ends.push_back(receive_parcel(of_child[0]).fd);
  std::string before;
  for (const int end : ends) {
    before += peer_of(end) + ", ";
  }
  checkpoint_here();
  std::string after;
  for (const int end : ends) {
    after += peer_of(end) + ", ";
  }
  CHECK_EQ(after, before);
  CHECK_EQ(peer_of(ends.back()), std::to_string(child.pid()) + ":0:0");
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("unix: servers and clients tell who the other is, those that come later too") {
  const auto abstract = "@criu-live-peer-" + std::to_string(::getpid());
  for (const auto& name : {scratch("sock"), abstract}) {
    const int listener = unix_socket();
    bind_to(listener, name);
    as_some_user([&] { REQUIRE(::listen(listener, 3) == 0); });
    REQUIRE(::fcntl(listener, F_DUPFD, name == abstract ? 60 : 50) >= 0);
    ::close(listener);
  }
  REQUIRE(::chmod(scratch("").c_str(), 0711) == 0);
  Child child([&] {
    as_some_user([&] {
      for (const auto& name : {scratch("sock"), abstract}) {
        const int client = unix_socket();
        REQUIRE(name == abstract || ::geteuid() == some_user);
        if (name != abstract) {
          REQUIRE(::seteuid(0) == 0);  // who may write to the socket's file
        }
        REQUIRE(try_connect(client, name) == 0);
        REQUIRE(::fcntl(client, F_DUPFD, name == abstract ? 62 : 52) >= 0);
        ::close(client);
        REQUIRE(::seteuid(some_user) == 0);
      }
    });
    const auto before = without_pid(peer_of(52)) + without_pid(peer_of(62));
    checkpoint_here();
    CHECK_EQ(without_pid(peer_of(52)) + without_pid(peer_of(62)), before);
  });
  const int by_path = ::accept(50, nullptr, nullptr);
  const int by_abstract = ::accept(60, nullptr, nullptr);
  REQUIRE(by_path >= 0 && by_abstract >= 0);
  const auto path_peer = peer_of(by_path), abstract_peer = peer_of(by_abstract);
  REQUIRE(path_peer.starts_with(std::to_string(child.pid()) + ":0:567 88 99"));
  REQUIRE(abstract_peer.starts_with(std::to_string(child.pid()) + ":1234:567 88 99"));
  const auto listeners = peer_of(50) + peer_of(60);
  checkpoint_here();
  CHECK_EQ(peer_of(by_path), path_peer);
  CHECK_EQ(without_pid(peer_of(by_abstract)), without_pid(abstract_peer));
  CHECK_EQ(peer_of(50) + peer_of(60), listeners);
  const int later = unix_socket();
  REQUIRE(try_connect(later, scratch("sock")) == 0);
  CHECK_EQ(without_pid(peer_of(later)), ":1234:567 88 99");
  put(by_path, "x");
  CHECK_EQ(own_name(by_path), scratch("sock"));
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("unix: who waits to be accepted is not taken for root") {
  const auto name = "@criu-live-wait-" + std::to_string(::getpid());
  const int listener = unix_socket();
  bind_to(listener, name);
  REQUIRE(::listen(listener, 3) == 0);
  Child child([&] {
    REQUIRE(::setresgid(some_group, some_group, some_group) == 0);
    REQUIRE(::setresuid(some_user, some_user, some_user) == 0);
    const int client = unix_socket();
    REQUIRE(try_connect(client, name) == 0);
    checkpoint_here();
  });
  checkpoint_here();
  const int server = ::accept(listener, nullptr, nullptr);
  CHECK(without_pid(peer_of(server)).starts_with(":1234:567"));
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("unix: options") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const timeval timeout{3, 500000};
  REQUIRE(::setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
  set_option(ends[0], SOL_SOCKET, SO_SNDBUF, 50000);
  set_option(ends[0], SOL_SOCKET, SO_RCVBUF, 60000);
  set_option(ends[0], SOL_SOCKET, SO_PASSSEC, 1);
  set_option(ends[0], SOL_SOCKET, SO_RCVLOWAT, 5);
  set_option(ends[0], SOL_SOCKET, SO_PRIORITY, 3);
  set_option(ends[0], SOL_SOCKET, SO_TIMESTAMP, 1);
  set_option(ends[0], SOL_SOCKET, SO_PEEK_OFF, 0);
  const bool pidfds = ::setsockopt(ends[0], SOL_SOCKET, 76, "\1\0\0\0", 4) == 0;
  REQUIRE(::fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
  REQUIRE(::fcntl(ends[0], F_SETOWN, ::getpid()) == 0 && ::fcntl(ends[0], F_SETSIG, 40) == 0);
  const auto before = options_of(ends[0]);
  checkpoint_here();
  CHECK_EQ(options_of(ends[0]), before);
  timeval now{};
  socklen_t size = sizeof now;
  REQUIRE(::getsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &now, &size) == 0);
  CHECK_EQ(now.tv_sec, timeout.tv_sec);
  CHECK_EQ(now.tv_usec, timeout.tv_usec);
  CHECK_EQ(option(ends[0], SOL_SOCKET, SO_PEEK_OFF), 0);
  CHECK_EQ(option(ends[0], SOL_SOCKET, 76), pidfds ? 1 : -1);
  CHECK_EQ(::fcntl(ends[0], F_GETFL) & O_NONBLOCK, O_NONBLOCK);
  CHECK_EQ(::fcntl(ends[0], F_GETOWN), ::getpid());
  CHECK_EQ(::fcntl(ends[0], F_GETSIG), 40);
}

LIVE_TEST("unix: watched by epoll, edge by edge") {
  int ends[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
  const int epoll = ::epoll_create1(0);
  epoll_event event{EPOLLIN | EPOLLET, {.u64 = 77}};
  REQUIRE(epoll >= 0 && ::epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
  checkpoint_here();
  CHECK_EQ(::epoll_wait(epoll, &event, 1, 0), 0);
  put(ends[1], "x");
  CHECK_EQ(::epoll_wait(epoll, &event, 1, 1000), 1);
  CHECK_EQ(event.data.u64, 77U);
}

LIVE_TEST("unix: a peer outside the tree is named, with what helps",
          {.dump_fails = "--ext-unix-sk or --external unix[", .outside = serve}) {
  const int sender = unix_socket(SOCK_DGRAM);
  REQUIRE(try_connect(sender, outside("log")) == 0);
  checkpoint_here();
  put(sender, "still connected");
}

LIVE_TEST("unix: a peer outside the tree with --ext-unix-sk", {.dump = {"-x"}, .restore = {"-x"}, .outside = serve}) {
  const int sender = unix_socket(SOCK_DGRAM);
  REQUIRE(try_connect(sender, outside("log")) == 0);
  put(sender, "before");
  checkpoint_here();
  CHECK_EQ(peer_name(sender), outside("log"));
  put(sender, "after");
}

LIVE_TEST("unix: a stream to the outside is named", {.dump_fails = "with both its ends only", .outside = serve}) {
  const int client = unix_socket();
  REQUIRE(try_connect(client, outside("stream")) == 0);
  checkpoint_here();
  put(client, "echo");
  CHECK_EQ(take_all(client, 4), "echo");
}

LIVE_TEST("unix: a path that another file took is in the way",
          {.restore_fails = "there is a file that is no socket", .tamper = [](const std::string& images) {
             const auto path = images + "/../sock";
             ::unlink(path.c_str());
             ::close(::open(path.c_str(), O_CREAT | O_WRONLY, 0600));
           }}) {
  const int listener = unix_socket();
  bind_to(listener, scratch("sock"));
  REQUIRE(::listen(listener, 1) == 0);
  checkpoint_here();
}
