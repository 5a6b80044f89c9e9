// SPDX-License-Identifier: GPL-2.0-only
#define CATCH_CONFIG_MAIN
#include "codec.hpp"

#include <sys/mman.h>

#include <catch2/catch.hpp>

#include "base/error.hpp"
#include "display.hpp"
#include "image/catalog.hpp"
#include "message.hpp"
#include "schema.hpp"
#include "text.hpp"

using crit::Json;

namespace {

base::Fd memory_file(const std::string& content) {
  base::Fd fd(::memfd_create("crit-test", MFD_CLOEXEC));
  REQUIRE(::write(fd.get(), content.data(), content.size()) == static_cast<ssize_t>(content.size()));
  REQUIRE(::lseek(fd.get(), 0, SEEK_SET) == 0);
  return fd;
}

template <typename Convert>
std::string converted(const std::string& input, const Convert& convert) {
  base::Fd result(::memfd_create("crit-test", MFD_CLOEXEC));
  crit::Source in(memory_file(input), "input");
  crit::Output out(base::Fd(::dup(result.get())), "output");
  convert(in, out);
  out.finish();
  std::string text(static_cast<std::size_t>(::lseek(result.get(), 0, SEEK_END)), '\0');
  REQUIRE(::pread(result.get(), text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  return text;
}

std::string decoded(const std::string& image, crit::View view = {}) {
  return converted(image, [&view](crit::Source& in, crit::Output& out) { crit::decode(in, out, view); });
}

std::string encoded(const std::string& json) {
  return converted(json, [](crit::Source& in, crit::Output& out) { crit::encode(in, out); });
}

std::string u32(std::uint32_t value) { return {reinterpret_cast<const char*>(&value), sizeof value}; }

std::string record(const std::string& message) { return u32(static_cast<std::uint32_t>(message.size())) + message; }

std::string image(const char* kind) { return u32(0x54564319) + u32(crit::kind_of(std::string_view(kind))->magic); }

// One image of each payload, as crit prints it.
const char* const payloads[] = {
    R"({"magic": "PIPES_DATA", "entries": [{"pipe_id": 7, "bytes": 3, "size": 65536, "extra": "YWJj\n"}, {"pipe_id": 8, "bytes": 0, "size": 4096, "extra": ""}]})",
    R"({"magic": "FIFO_DATA", "entries": [{"pipe_id": 7, "bytes": 3, "size": 65536, "extra": "YWJj\n"}]})",
    R"({"magic": "SK_QUEUES", "entries": [{"id_for": 3, "length": 2, "extra": "ZmQ=\n"}]})",
    R"({"magic": "TCP_STREAM", "entries": [{"inq_len": 1, "inq_seq": 5, "outq_len": 2, "outq_seq": 6, "opt_mask": 7, "snd_wscale": 7, "mss_clamp": 1460, "more_options": 64, "extra": {"inq": "YQ==\n", "outq": "YmM=\n"}}]})",
    R"({"magic": "IPCNS_SEM", "entries": [{"desc": {"key": 1, "uid": 0, "gid": 0, "cuid": 0, "cgid": 0, "mode": 384, "id": 0}, "nsems": 3, "extra": [0, 5, 65535]}]})",
    R"({"magic": "IPCNS_MSG", "entries": [{"desc": {"key": 1, "uid": 0, "gid": 0, "cuid": 0, "cgid": 0, "mode": 384, "id": 0}, "qbytes": 16384, "qnum": 2, "extra": [{"mtype": 7, "msize": 3}, "YWJj\n", {"mtype": 8, "msize": 8}, "YWJjZGVmZ2g=\n"]}]})",
    R"({"magic": "IPCNS_SHM", "entries": [{"desc": {"key": 1, "uid": 0, "gid": 0, "cuid": 0, "cgid": 0, "mode": 384, "id": 0}, "size": 5, "extra": "YWJjZGU=\n"}, {"desc": {"key": 2, "uid": 0, "gid": 0, "cuid": 0, "cgid": 0, "mode": 384, "id": 1}, "size": 4096, "in_pagemaps": true, "extra": ""}]})",
    R"({"magic": "GHOST_FILE", "entries": [{"uid": 0, "gid": 0, "mode": 33188, "extra": "Z2hvc3QgZGF0YQ==\n"}]})",
    R"({"magic": "GHOST_FILE", "entries": [{"uid": 0, "gid": 0, "mode": 33188, "chunks": true, "size": 8192}, {"len": 3, "off": 0, "extra": "YWJj\n"}, {"len": 1, "off": 4096, "extra": "YQ==\n"}]})",
    R"({"magic": "BPFMAP_DATA", "entries": [{"map_id": 1, "keys_bytes": 4, "values_bytes": 2, "count": 1, "extra": "AQAAAAIA\n"}]})",
};

}  // namespace

TEST_CASE("raw bytes behind a record are its extra, and come back") {
  const std::string json = GENERATE(from_range(std::begin(payloads), std::end(payloads)));
  const auto bytes = encoded(json);
  CHECK(decoded(bytes) == json);
  // All of it is accounted for, but for the file that goes on to the end.
  if (json != payloads[7]) {
    CHECK_THROWS_AS(decoded(bytes.substr(0, bytes.size() - 1)), base::Error);
    CHECK_THROWS_AS(decoded(bytes + "x"), base::Error);
  }
}

TEST_CASE("the extra of segments, queues and sets is padded as the format says") {
  CHECK(encoded(payloads[6]).find(std::string("abcde\0\0\0", 8)) != std::string::npos);
  const auto sem = encoded(payloads[4]);
  CHECK(sem.substr(sem.size() - 8) == std::string("\0\0\5\0\xff\xff\0\0", 8));
  const auto msg = encoded(payloads[5]);
  CHECK(msg.substr(msg.size() - 8) == "abcdefgh");
  CHECK(msg.find(std::string("abc\0\0\0\0\0", 8)) != msg.npos);
}

TEST_CASE("sizes of what is not shown") {
  CHECK(decoded(encoded(payloads[0]), {false, false}).find(R"("extra": "... <3B>")") != std::string::npos);
  CHECK(decoded(encoded(payloads[3]), {false, false}).find(R"("extra": "... <3B>")") != std::string::npos);
  CHECK(decoded(encoded(payloads[5]), {false, false}).find(R"("extra": "... <11B>")") != std::string::npos);
  CHECK(decoded(encoded(payloads[7]), {false, false}).find(R"("extra": "... <10B>")") != std::string::npos);
  CHECK_THROWS_WITH(encoded(decoded(encoded(payloads[0]), {false, false})), Catch::Contains("--nopl"));
  CHECK(crit::short_size(1536) == "1.5KB");
  CHECK(crit::short_size(2048) == "2KB");
  CHECK(crit::short_size(3 << 20) == "3MB");
}

TEST_CASE("pretty output is Python's") {
  CHECK(
      decoded(
          encoded(R"({"magic": "PSTREE", "entries": [{"pid": 1, "ppid": 0, "pgid": 1, "sid": 1, "threads": [1, 2]}]})"),
          {true, true}) ==
      "{\n    \"magic\": \"PSTREE\",\n    \"entries\": [\n        {\n            \"pid\": 1,\n            \"ppid\": "
      "0,\n"
      "            \"pgid\": 1,\n            \"sid\": 1,\n            \"threads\": [\n                1,\n"
      "                2\n            ]\n        }\n    ]\n}");
  CHECK(decoded(image("PSTREE"), {true, true}) == "{\n    \"magic\": \"PSTREE\",\n    \"entries\": []\n}");
}

TEST_CASE("what is spelled in pretty output is read in every spelling") {
  const auto entry = [](const std::string& flags, const std::string& dev, const std::string& mode) {
    return R"({"entries": [{"uid": 0, "gid": 0, "mode": )" + mode + R"(, "dev": )" + dev +
           R"(, "extra": ""}], "magic": "GHOST_FILE"})" + flags;
  };
  // The magic may come last, as `jq -S` sorts.
  const auto plain = encoded(entry("", "266338305", "33188"));
  CHECK(encoded(entry("", R"("254:1")", R"("0x81a4")")) == plain);
  CHECK(encoded(entry("\n ", R"("266338305")", R"("0o100644")")) == plain);
  CHECK(decoded(plain, {true, true}).find(R"("dev": "254:1")") != std::string::npos);

  const crit::Names names{{1, "A"}, {2, "B"}};
  const crit::Display flags{crit::Display::flags, &names};
  CHECK(crit::flags_text(names, 11) == "A | B | 0x8");
  CHECK(crit::flags_text(names, 0).empty());
  CHECK(crit::read_displayed("A | B | 0x8", &flags)->magnitude == 11);
  CHECK(crit::read_displayed("", &flags)->magnitude == 0);
  CHECK_FALSE(crit::read_displayed("A | C", &flags));
  CHECK(crit::device_text(0xf0000301, crit::Display::libc_device) == "3:983041");
  const crit::Display device{crit::Display::libc_device};
  CHECK(crit::read_displayed("3:983041", &device)->magnitude == 0xf0000301);
}

TEST_CASE("addresses") {
  CHECK(crit::address_text({0x0100007f}) == "127.0.0.1");
  CHECK(crit::address_text({0, 0, 0, 0}) == "::");
  CHECK(crit::address_text({0, 0, 0, 0x01000000}) == "::1");
  CHECK(crit::address_text({0, 0, 0xffff0000, 0x0100007f}) == "::ffff:7f00:1");
  CHECK(crit::address_text({0xb80d0120, 0x01000000, 0, 0}) == "2001:db8:0:1::");
  CHECK(crit::read_address("::ffff:7f00:1") == std::vector<std::uint32_t>{0, 0, 0xffff0000, 0x0100007f});
  CHECK(crit::read_address("10.0.0.1") == std::vector<std::uint32_t>{0x0100000a});
  CHECK_FALSE(crit::read_address("10.0.0"));
}

TEST_CASE("text") {
  CHECK(crit::base64("").empty());
  CHECK(crit::base64("to master") == "dG8gbWFzdGVy\n");
  CHECK(crit::base64(std::string(57, 'x')).size() == 77);
  CHECK(crit::base64(std::string(58, 'x')).size() == 77 + 5);
  CHECK(crit::from_base64("dG8g\nbWFzdGVy") == "to master");
  CHECK_FALSE(crit::from_base64("dG8"));
  CHECK_FALSE(crit::from_base64("d=8="));
  CHECK(crit::quoted_printable(std::string("\0a b=\xc3\xa9 ", 8)) == "=00a b=3D=C3=A9=20");
  CHECK(crit::quoted_printable("a\nb") == "a=0Ab");
  CHECK(crit::quoted_printable(std::string(100, 'x')) == std::string(75, 'x') + "=\n" + std::string(25, 'x'));
  for (const auto& name : {std::string(107, '\xff'), std::string(". a\t"), std::string("\r\n=\n"), std::string(".")}) {
    CHECK(crit::from_quoted_printable(crit::quoted_printable(name)) == name);
  }
  CHECK(crit::escaped("a\"\\\n\x7f\xc3\xa9\xf0\x9f\x98\x80") == "a\\\"\\\\\\n\\u007f\\u00e9\\ud83d\\ude00");
  CHECK(crit::escaped("\xff\xed\xa0\x80") == "\\udcff\\udced\\udca0\\udc80");
}

TEST_CASE("names that are no UTF-8, and all others, come back") {
  const std::string name =
      GENERATE("plain", "caf\xe9", "\xc3\xa9", "\xf0\x9f\x98\x80", "\xed\xb2\x80", "a\"b\\c\nd\x01");
  const auto bytes =
      encoded(R"({"magic": "UTSNS", "entries": [{"nodename": ")" + crit::escaped(name) + R"(", "domainname": "d"}]})");
  CHECK(bytes.find(name) != bytes.npos);
  CHECK(encoded(decoded(bytes)) == bytes);
}

TEST_CASE("what this version does not know stays where it is") {
  // A field of a later version, a value that an enum does not have, and a negative one.
  const std::string later(
      "\xa2\x3f\x03"
      "abc",
      6);
  const auto bytes = image("FDINFO") + record(std::string("\x08\x01\x10\x00\x18\x63\x20\x03", 8) + later);
  const auto json = decoded(bytes);
  CHECK(json.find(R"("type": 99)") != json.npos);
  CHECK(json.find("unknown_fields") != json.npos);
  CHECK(encoded(json) == bytes);
}

TEST_CASE("this suite's own fields are fields like others") {
  const auto json =
      R"({"magic": "CORE", "entries": [{"mtype": "X86_64", "thread_core": {"futex_rla": 0, "futex_rla_len": 0, "extension": {"timer_slack": 50000, "xstate": [{"number": 18, "contents": "YWJj\n"}], "sleep": {"clock": 1, "left_sec": 2, "left_nsec": 3, "remainder": 4}, "affinity": "/w==\n"}}}]})";
  CHECK(decoded(encoded(json)) == json);
}

TEST_CASE("both generations of magics are read") {
  const auto first = u32(0x50273030) + record("\x08\x01\x10\x02\x18\x03\x20\x04");
  CHECK(decoded(first) == R"({"magic": "PSTREE", "entries": [{"pid": 1, "ppid": 2, "pgid": 3, "sid": 4}]})");
  CHECK(encoded(decoded(first)) == u32(0x54564319) + first);
}

TEST_CASE("entries are counted") {
  crit::Source in(memory_file(encoded(payloads[8])), "input");
  CHECK(crit::info(in).count == 3);
  crit::Source maps(
      memory_file(encoded(
          R"({"magic": "PAGEMAP", "entries": [{"pages_id": 1}, {"vaddr": "0x1000", "compat_nr_pages": 0, "nr_pages": 2}]})")),
      "input");
  CHECK(crit::info(maps).count == 1);
}

TEST_CASE("bad images are one error") {
  CHECK_THROWS_WITH(decoded(""), Catch::Contains("truncated"));
  CHECK_THROWS_WITH(decoded("abcdefgh"), Catch::Contains("Unknown magic 0x64636261."));
  CHECK_THROWS_WITH(decoded(u32(0x54564319) + u32(0x57023458)), Catch::Contains("image with magic KDAT"));
  CHECK_THROWS_WITH(decoded(image("PSTREE") + "\x01"), Catch::Contains("truncated"));
  CHECK_THROWS_WITH(decoded(image("PSTREE") + u32(0xffffffff)), Catch::Contains("a record of 4294967295 bytes"));
  CHECK_THROWS_WITH(decoded(image("PSTREE") + u32(0x3fffffff) + "abc"), Catch::Contains("truncated"));
  CHECK_THROWS_WITH(decoded(image("PSTREE") + record("\xff\xff\xff")), Catch::Contains("no pstree_entry"));
  CHECK_THROWS_WITH(decoded(image("PSTREE") + record("\x08\x01")), Catch::Contains("lacks ppid, pgid, sid"));
  const auto pipe = encoded(payloads[1]);
  CHECK_THROWS_WITH(decoded(pipe.substr(0, pipe.size() - 2)), Catch::Contains("3 bytes wanted and 1 there"));
}

TEST_CASE("bad JSON is one error") {
  for (const char* bad :
       {"",
        "{",
        "[]",
        "{}",
        "nonsense",
        R"({"magic": "PSTREE"})",
        R"({"magic": "NONE", "entries": []})",
        R"({"magic": "PSTREE", "entries": []} x)",
        R"({"magic": "PSTREE", "entries": [1]})",
        R"({"magic": "PSTREE", "magic": "PSTREE", "entries": []})",
        R"({"magic": "PSTREE", "entries": [{"pid": 1}]})",
        R"({"magic": "PSTREE", "entries": [{"pid": 1, "pid": 1}]})",
        R"({"magic": "PSTREE", "entries": [{"pdi": 1}]})",
        R"({"magic": "PSTREE", "entries": [{"pid": 4294967296, "ppid": 0, "pgid": 0, "sid": 0}]})",
        R"({"magic": "PSTREE", "entries": [{"pid": -1, "ppid": 0, "pgid": 0, "sid": 0}]})",
        R"({"magic": "PSTREE", "entries": [{"pid": 1.5, "ppid": 0, "pgid": 0, "sid": 0}]})",
        R"({"magic": "PSTREE", "entries": [{"pid": "x", "ppid": 0, "pgid": 0, "sid": 0}]})",
        R"({"magic": "PSTREE", "entries": [{"pid": null, "ppid": 0, "pgid": 0, "sid": 0}]})",
        R"({"magic": "PSTREE", "entries": [{"pid": 1, "ppid": 0, "pgid": 0, "sid": 0, "threads": 1}]})",
        R"({"magic": "PSTREE", "entries": [{"pid": 1, "ppid": 0, "pgid": 0, "sid": 0, "extra": "YQ=="}]})",
        R"({"magic": "PIPES_DATA", "entries": [{"pipe_id": 7, "bytes": 4, "size": 1, "extra": "YWJj\n"}]})",
        R"({"magic": "PIPES_DATA", "entries": [{"pipe_id": 7, "bytes": 3, "size": 1, "extra": "Y!Jj\n"}]})",
        R"({"magic": "UTSNS", "entries": [{"nodename": "\ud800", "domainname": ""}]})",
        R"({"magic": "UTSNS", "entries": [{"nodename": "\x", "domainname": ""}]})",
        "{\"magic\": \"UTSNS\", \"entries\": [{\"nodename\": \"\n\", \"domainname\": \"\"}]}"}) {
    INFO(bad);
    CHECK_THROWS_AS(encoded(bad), base::Error);
  }
  std::string deep = R"({"magic": "APPARMOR", "entries": [)";
  for (int i = 0; i < 100000; ++i) {
    deep += R"({"a":[)";
  }
  CHECK_THROWS_WITH(encoded(deep), Catch::Contains("nested too deeply"));
}

TEST_CASE("long bytes go through a file, whatever comes before what") {
  std::string bytes;
  for (std::uint32_t i = 0; i < 3000000; ++i) {
    bytes += static_cast<char>(i * 7919 >> 3);
  }
  const auto text = crit::escaped(crit::base64(bytes));
  const auto image_bytes =
      encoded(R"({"magic": "GHOST_FILE", "entries": [{"extra": ")" + text + R"(", "uid": 0, "gid": 0, "mode": 1}]})");
  CHECK(encoded(R"({"entries": [{"extra": ")" + text +
                R"(", "uid": 0, "gid": 0, "mode": 1}], "magic": "GHOST_FILE"})") == image_bytes);
  CHECK(image_bytes.substr(image_bytes.size() - bytes.size()) == bytes);
  CHECK(encoded(decoded(image_bytes)) == image_bytes);
}

TEST_CASE("the library and crit call the same images the same") {
  using namespace criu::image::type;
  for (const auto* type :
       {&inventory,     &pstree,        &core,     &ids,         &mm,         &fs,          &creds,      &fdinfo,
        &pagemap,       &shmem_pagemap, &files,    &remap_fpath, &ghost_file, &sk_queues,   &pipes_data, &fifo_data,
        &tcp_stream,    &tty_info,      &tty_data, &cgroup,      &file_locks, &seccomp,     &apparmor,   &memfd_inode,
        &bpfmap_data,   &utsns,         &mnts,     &userns,      &timens,     &pidns,       &ipc_var,    &ipcns_shm,
        &ipcns_msg,     &ipcns_sem,     &netdev,   &netns,       &autofs,     &binfmt_misc, &cpuinfo,    &stats_dump,
        &stats_restore, &irmap_cache}) {
    INFO(type->name);
    const auto* kind = crit::kind_of(std::string_view(type->id));
    REQUIRE(kind != nullptr);
    CHECK(kind->magic == type->magic);
    CHECK(static_cast<std::uint32_t>(kind->family) == static_cast<std::uint32_t>(type->family));
  }
}
