// SPDX-License-Identifier: GPL-2.0-only
// Real servers, checkpointed while a client outside of the tree keeps its connection: it asks the same server before
// and after, over the same socket.
#include <netinet/in.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <filesystem>

#include "net.hpp"

using namespace live;
using namespace net;

namespace {

// What is sent, how the answer begins, and how it ends. A '#' in the next answer counts from 2 on.
struct Talk {
  std::string first, first_answer;
  std::string next, next_answer;
  std::string end = "\r\n";
};

std::string ask(int fd, const std::string& question, const std::string& end) {
  put(fd, question);
  std::string answer;
  while (!answer.ends_with(end)) {
    const auto byte = take_all(fd, 1);
    if (byte.empty()) {
      break;
    }
    answer += byte;
  }
  return answer;
}

// A connection to the server, once it listens.
int connect_when_there(int port) {
  int fd = -1;
  await(
      [&] {
        fd = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(static_cast<std::uint16_t>(port));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        const bool there = ::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
        if (!there) {
          ::close(fd);
        }
        return there;
      },
      "the server listens");
  return fd;
}

// The client, which is the judge as well: it makes the files that the harness waits for.
void converse(const Talk& talk) {
  const int free_port = bound(AF_INET, SOCK_STREAM);
  const int port = port_of(free_port);
  ::close(free_port);
  write_text(outside("port"), std::to_string(port));
  const int watch = ::inotify_init1(IN_CLOEXEC);
  REQUIRE(watch >= 0 && ::inotify_add_watch(watch, scratch("").c_str(), IN_CLOSE_WRITE) >= 0);
  outside_ready();
  const int fd = connect_when_there(port);
  REQUIRE(ask(fd, talk.first, talk.end).starts_with(talk.first_answer));
  write_text(scratch("ready"), "ready");
  for (int count = 2;;) {
    std::array<char, 4096> events{};
    REQUIRE(::read(watch, events.data(), events.size()) > 0);
    if (::access(scratch("go").c_str(), F_OK) != 0) {
      continue;
    }
    ::unlink(scratch("go").c_str());
    auto wanted = talk.next_answer;
    if (const auto at = wanted.find('#'); at != std::string::npos) {
      wanted.replace(at, 1, std::to_string(count++));
    }
    const auto answer = ask(fd, talk.next, talk.end);
    write_text(scratch("report.new"), answer.starts_with(wanted) ? "ok" : "BAD: " + answer + " instead of " + wanted);
    std::filesystem::rename(scratch("report.new"), scratch("report"));
  }
}

Options with_client(void (*client)()) {
  return {.dump = {"--tcp-established"}, .restore = {"--tcp-established"}, .outside = client};
}

}  // namespace

LIVE_PROGRAM("program: redis with a client", Program{.arguments = {"sh", "@redis.sh"}}, with_client([] {
               converse({"SET n 1\r\n", "+OK\r\n", "INCR n\r\n", ":#\r\n"});
             }));
LIVE_PROGRAM("program: memcached with a client", Program{.arguments = {"sh", "@memcached.sh"}}, with_client([] {
               converse({"set n 0 0 1\r\n1\r\n", "STORED\r\n", "incr n 1\r\n", "#\r\n"});
             }));

namespace {

const std::string request = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";

}  // namespace

LIVE_PROGRAM("program: nginx with a kept-alive client", Program{.arguments = {"sh", "@nginx.sh"}}, with_client([] {
               converse({request, "HTTP/1.1 204 No Content\r\n", request, "HTTP/1.1 204 No Content\r\n", "\r\n\r\n"});
             }));
