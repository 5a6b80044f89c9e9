// SPDX-License-Identifier: GPL-2.0-only
// Real servers, checkpointed while a client outside of the tree keeps its connection: it asks the same server before
// and after, over the same socket.
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <functional>
#include <vector>

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
        const auto address = tree_address(port);
        const bool there = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
        if (!there) {
          ::close(fd);
        }
        return there;
      },
      "the server listens");
  return fd;
}

// Chooses the port, and tells the server by a file.
int choose_port() {
  const int free_port = bound(AF_INET, SOCK_STREAM);
  const int port = port_of(free_port);
  ::close(free_port);
  write_text(outside("port"), std::to_string(port));
  return port;
}

// The client is the judge as well: it makes the files that the harness waits for. `begin` gets the port; `check` is
// called after each round, with the number of it, and returns what is wrong.
void judge(const std::function<void(int port)>& begin, const std::function<std::string(int round)>& check) {
  const int port = choose_port();
  const int watch = ::inotify_init1(IN_CLOEXEC);
  REQUIRE(watch >= 0 && ::inotify_add_watch(watch, scratch("").c_str(), IN_CLOSE_WRITE) >= 0);
  outside_ready();
  begin(port);
  write_text(scratch("ready"), "ready");
  for (int round = 1;;) {
    std::array<char, 4096> events{};
    REQUIRE(::read(watch, events.data(), events.size()) > 0);
    if (::access(scratch("go").c_str(), F_OK) != 0) {
      continue;
    }
    ::unlink(scratch("go").c_str());
    const auto wrong = check(round++);
    write_text(scratch("report.new"), wrong.empty() ? "ok" : "BAD: " + wrong);
    std::filesystem::rename(scratch("report.new"), scratch("report"));
  }
}

std::string differs(const std::string& answer, const std::string& wanted) {
  return answer.starts_with(wanted) ? "" : "\"" + answer + "\" instead of \"" + wanted + "\"";
}

void converse(const Talk& talk) {
  int fd = -1;
  judge(
      [&](int port) {
        fd = connect_when_there(port);
        REQUIRE(ask(fd, talk.first, talk.end).starts_with(talk.first_answer));
      },
      [&](int round) {
        auto wanted = talk.next_answer;
        if (const auto at = wanted.find('#'); at != std::string::npos) {
          wanted.replace(at, 1, std::to_string(round + 1));
        }
        return differs(ask(fd, talk.next, talk.end), wanted);
      });
}

// Many clients of one server: each has a number of its own there, and each asks for its next value.
void crowd() {
  constexpr rlim_t wanted = 10000, spare = 200;
  rlimit limit{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  limit.rlim_cur = limit.rlim_max;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max > 2 * spare);
  const auto count = std::min(wanted, limit.rlim_max - spare);
  std::vector<int> clients;
  const auto each = [&](const std::string& value) {
    std::string wrong;
    for (std::size_t i = 0; i < clients.size(); ++i) {
      put(clients[i], "INCR n" + std::to_string(i) + "\r\n");
    }
    for (const int client : clients) {
      if (const auto answer = take_all(client, value.size()); answer != value) {
        wrong = differs(answer, value);
      }
    }
    return wrong;
  };
  judge(
      [&](int port) {
        ::close(connect_when_there(port));
        while (clients.size() < count) {
          clients.push_back(connected_to(tree_address(port)));
        }
        REQUIRE(each(":1\r\n").empty());
      },
      [&](int round) { return each(":" + std::to_string(round + 1) + "\r\n"); });
}

// ---- PostgreSQL's protocol, version 3 -------------------------------------------------------------------------------

void put_number(std::string& text, std::uint32_t number) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    text += static_cast<char>(number >> shift & 0xff);
  }
}

// Reads messages until the server is ready for the next command: their types, and the fields of rows and errors.
std::string hear_postgres(int fd) {
  std::string heard;
  for (;;) {
    const auto head = take_all(fd, 5);
    if (head.size() < 5) {
      return heard + " (the connection ended)";
    }
    std::uint32_t size = 0;
    std::memcpy(&size, head.data() + 1, sizeof size);
    const auto body = take_all(fd, ntohl(size) - 4);
    if (head[0] == 'D') {
      heard += body.substr(6) + ";";  // one column: a count of two bytes, a size of four
    } else if (head[0] == 'E') {
      heard += "error " + body;
    } else if (head[0] == 'C') {
      heard += std::string(body.c_str()) + ";";  // NOLINT(readability-redundant-string-cstr): up to its first zero
    } else if (head[0] == 'Z') {
      return heard + body;  // I: idle, T: in a transaction, E: in a failed one
    }
  }
}

std::string sql(int fd, const std::string& text) {
  std::string message = "Q";
  put_number(message, static_cast<std::uint32_t>(text.size() + 5));
  put(fd, message + text + '\0');
  return hear_postgres(fd);
}

int log_in(int port) {
  const int fd = connect_when_there(port);
  using namespace std::string_literals;
  const auto who = "user\0postgres\0database\0postgres\0\0"s;
  std::string message;
  put_number(message, static_cast<std::uint32_t>(who.size() + 8));
  put_number(message, 3U << 16);
  put(fd, message + who);
  hear_postgres(fd);
  return fd;
}

// One client is in the middle of a transaction at every checkpoint; another must not see what it does before the end.
void transact() {
  int writer = -1, reader = -1;
  const auto begin = [&](int round) {
    auto heard = sql(writer, "BEGIN");
    heard += sql(writer, "INSERT INTO t VALUES (" + std::to_string(round) + ")");
    return heard + sql(writer, "DECLARE c" + std::to_string(round) + " CURSOR FOR SELECT n FROM t ORDER BY n");
  };
  const auto made = outside("made");
  REQUIRE(::mkfifo(made.c_str(), 0600) == 0 && ::chmod(made.c_str(), 0666) == 0);
  const std::string begun = "BEGIN;TINSERT 0 1;TDECLARE CURSOR;T";
  judge(
      [&](int port) {
        // To make a database takes its time.
        REQUIRE(::open(made.c_str(), O_RDONLY | O_CLOEXEC) >= 0);
        // A server that is not up yet says so and hangs up.
        await(
            [&] {
              writer = log_in(port);
              return sql(writer, "SELECT 1").starts_with("1;");
            },
            "postgres is up");
        reader = log_in(port);
        REQUIRE(sql(writer, "CREATE TABLE t (n int)") == "CREATE TABLE;I");
        REQUIRE(begin(1) == begun);
        REQUIRE(sql(reader, "SELECT count(*) FROM t") == "0;SELECT 1;I");
      },
      [&](int round) {
        const auto number = std::to_string(round), before = std::to_string(round - 1);
        auto wrong = differs(sql(reader, "SELECT count(*) FROM t"), before + ";SELECT 1;I");
        wrong += differs(sql(writer, "FETCH LAST FROM c" + number), number + ";FETCH 1;T");
        wrong += differs(sql(writer, "COMMIT"), "COMMIT;I");
        wrong += differs(sql(reader, "SELECT max(n) FROM t"), number + ";SELECT 1;I");
        return wrong + differs(begin(round + 1), begun);
      });
}

Options with_client(void (*client)()) {
  return {.dump = {"--tcp-established"}, .restore = {"--tcp-established"}, .outside = client};
}

}  // namespace

LIVE_PROGRAM("program: redis with a client", Program{.arguments = {"sh", "@redis.sh"}}, with_client([] {
               converse({"SET n 1\r\n", "+OK\r\n", "INCR n\r\n", ":#\r\n"});
             }));
LIVE_PROGRAM("program: redis with 10000 clients", Program{.arguments = {"sh", "@redis-crowd.sh"}}, with_client(crowd));
LIVE_PROGRAM("program: postgres in a transaction", Program{.arguments = {"sh", "@postgres.sh"}}, with_client(transact));
LIVE_PROGRAM("program: memcached with a client", Program{.arguments = {"sh", "@memcached.sh"}}, with_client([] {
               converse({"set n 0 0 1\r\n1\r\n", "STORED\r\n", "incr n 1\r\n", "#\r\n"});
             }));

namespace {

const std::string request = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";

}  // namespace

LIVE_PROGRAM("program: nginx with a kept-alive client", Program{.arguments = {"sh", "@nginx.sh"}}, with_client([] {
               converse({request, "HTTP/1.1 204 No Content\r\n", request, "HTTP/1.1 204 No Content\r\n", "\r\n\r\n"});
             }));
