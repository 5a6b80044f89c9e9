// SPDX-License-Identifier: GPL-2.0-only
#include "entries.hpp"

#include <core.pb.h>
#include <fcntl.h>
#include <fdinfo.pb.h>
#include <ghost-file.pb.h>
#include <inventory.pb.h>
#include <mm.pb.h>
#include <pagemap.pb.h>
#include <pstree.pb.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <soccr/soccr.hpp>
#include <stdexcept>

#include "base/error.hpp"
#include "image/directory.hpp"
#include "kernel/procfs.hpp"
#include "kernel/procfs_fd.hpp"
#include "log.hpp"
#include "memory/pages.hpp"
#include "memory/vdso.hpp"
#include "options.hpp"
#include "options_table.hpp"

namespace fuzz {

namespace {

namespace fs = std::filesystem;
namespace image = criu::image;

std::string_view text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

std::string file(const fs::path& path) {
  std::ifstream stream(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
}

template <typename Call>
void tolerant(Call call) {
  try {
    call();
  } catch (const base::Error&) {
  }
}

// A directory for images, gone with the program.
class Place {
 public:
  Place() {
    if (::mkdtemp(path_.data()) == nullptr) {
      std::abort();
    }
  }
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;
  ~Place() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }

  const std::string& path() const { return path_; }
  void put(const std::string& name, Bytes bytes) const {
    std::ofstream stream(path_ + "/" + name, std::ios::binary | std::ios::trunc);
    stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  }

 private:
  std::string path_ = "/tmp/criu-fuzz-XXXXXX";
};

const Place& place() {
  static const Place one;
  return one;
}

base::Fd memory_file(Bytes bytes) {
  base::Fd fd(base::check(::memfd_create("fuzz", MFD_CLOEXEC), "memfd_create"));
  base::check(::write(fd.get(), bytes.data(), bytes.size()), "write");
  base::check(::lseek(fd.get(), 0, SEEK_SET), "lseek");
  return fd;
}

template <typename Message, const image::Type& type>
void read_image(Bytes bytes) {
  tolerant([&] {
    image::Reader reader(memory_file(bytes), "fuzz.img", type);
    Message message;
    while (reader.next(message)) {
    }
  });
  tolerant([&] {
    image::Reader reader(memory_file(bytes), "fuzz.img", type);
    Message message;
    reader.only(message);
  });
}

// Raw bytes behind a record, as long as the record says.
void read_ghost(Bytes bytes) {
  tolerant([&] {
    image::Reader reader(memory_file(bytes), "fuzz.img", image::type::ghost_file);
    criu::images::ghost_file_entry ghost;
    criu::images::ghost_chunk_entry chunk;
    if (reader.next(ghost)) {
      while (reader.next(chunk)) {
        reader.raw(chunk.len());
      }
    }
  });
}

void read_pagemap(Bytes bytes) {
  place().put("pagemap-1.img", bytes);
  const std::string page(8 * 4096, 'x');
  place().put("pages-1.img", std::as_bytes(std::span(page)));
  tolerant([] {
    const image::Directory directory(place().path());
    criu::memory::Pagemap::read(directory, image::type::pagemap, 1);
  });
}

template <typename Message>
std::vector<std::string> written(const image::Type& type, const std::vector<Message>& records) {
  const image::Directory directory(place().path());
  auto writer = directory.create(type, 1);
  const auto name = place().path() + "/" + writer.name();
  for (const auto& record : records) {
    writer.write(record);
  }
  writer.finish();
  return {file(name)};
}

std::vector<std::string> pstree_seeds() {
  criu::images::pstree_entry entry;
  entry.set_pid(7);
  entry.set_ppid(0);
  entry.set_pgid(7);
  entry.set_sid(7);
  entry.add_threads(7);
  entry.add_threads(8);
  return written<criu::images::pstree_entry>(image::type::pstree, {entry, entry, entry});
}

std::vector<std::string> inventory_seeds() {
  criu::images::inventory_entry entry;
  entry.set_img_version(2);
  entry.set_fdinfo_per_id(true);
  entry.set_root_cg_set(1);
  return written<criu::images::inventory_entry>(image::type::inventory, {entry});
}

std::vector<std::string> fdinfo_seeds() {
  criu::images::fdinfo_entry entry;
  entry.set_id(3);
  entry.set_flags(1);
  entry.set_type(criu::images::REG);
  entry.set_fd(4);
  return written<criu::images::fdinfo_entry>(image::type::fdinfo, {entry, entry});
}

std::vector<std::string> pagemap_seeds() {
  criu::images::pagemap_head head;
  head.set_pages_id(1);
  const image::Directory directory(place().path());
  auto writer = directory.create(image::type::pagemap, 1);
  writer.write(head);
  for (std::uint64_t i = 0; i < 3; ++i) {
    criu::images::pagemap_entry entry;
    entry.set_vaddr(0x400000 + i * 0x10000);
    entry.set_nr_pages(2);
    entry.set_flags(4);
    writer.write(entry);
  }
  writer.finish();
  return {file(place().path() + "/pagemap-1.img")};
}

std::vector<std::string> ghost_seeds() {
  criu::images::ghost_file_entry ghost;
  ghost.set_uid(0);
  ghost.set_gid(0);
  ghost.set_mode(0100644);
  ghost.set_chunks(true);
  ghost.set_size(1 << 20);
  criu::images::ghost_chunk_entry chunk;
  chunk.set_off(4096);
  chunk.set_len(64);
  const std::string data(64, 'x');
  const image::Directory directory(place().path());
  auto writer = directory.create(image::type::ghost_file, 1);
  writer.write(ghost);
  for (int i = 0; i < 3; ++i) {
    writer.write(chunk);
    writer.raw(std::as_bytes(std::span(data)));
  }
  writer.finish();
  return {file(place().path() + "/" + writer.name())};
}

// Images of CRIU 4.2 itself, where they are at hand.
std::vector<std::string> sample_seeds(const char* prefix) {
  std::vector<std::string> found;
  const char* shared = std::getenv("CRIU_SHARED");
  const fs::path images = fs::path(shared != nullptr ? shared : SOURCE_ROOT "/../shared") / "samples/sleep/img";
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(images, none)) {
    if (entry.path().filename().string().starts_with(prefix)) {
      found.push_back(file(entry.path()));
    }
  }
  return found;
}

std::vector<std::string> core_seeds() {
  auto found = sample_seeds("core-");
  if (found.empty()) {
    criu::images::core_entry entry;
    entry.set_mtype(criu::images::core_entry::X86_64);
    entry.mutable_tc()->set_comm("seed");
    found = written<criu::images::core_entry>(image::type::core, {entry});
  }
  return found;
}

std::vector<std::string> mm_seeds() {
  auto found = sample_seeds("mm-");
  if (found.empty()) {
    found = inventory_seeds();
  }
  return found;
}

void smaps(Bytes bytes) {
  tolerant([&] { criu::procfs::parse_smaps(text(bytes)); });
}
void stat(Bytes bytes) {
  tolerant([&] { criu::procfs::parse_stat(std::string(text(bytes))); });
}
void status(Bytes bytes) {
  tolerant([&] { criu::procfs::parse_status(std::string(text(bytes))); });
}
void timers(Bytes bytes) {
  tolerant([&] { criu::procfs::parse_timers(text(bytes)); });
}
void limits(Bytes bytes) {
  tolerant([&] { criu::procfs::parse_limits(text(bytes)); });
}
void fdinfo(Bytes bytes) {
  tolerant([&] { criu::kernel::parse_fdinfo(std::string(text(bytes))); });
  tolerant([&] { criu::kernel::epoll_targets(text(bytes)); });
  tolerant([&] { criu::kernel::time(text(bytes), "it_value"); });
  tolerant([&] { criu::kernel::number(text(bytes), "eventfd-count", 16); });
}
void config(Bytes bytes) {
  tolerant([&] {
    // What is odd about an option is said on stderr, thousands of times.
    criu::log::current_level = 0;
    criu::Options options;
    criu::parse_config(options, text(bytes), "fuzz.conf");
  });
}
void vdso(Bytes bytes) {
  tolerant([&] { criu::memory::parse_vdso(bytes); });
}

// What is read is what is written again.
void saved_connection(Bytes bytes) {
  try {
    const auto saved = soccr::Saved::decode(bytes.data(), bytes.size());
    const auto again = saved.encode();
    if (!std::equal(again.begin(), again.end(), bytes.begin(), bytes.end())) {
      throw std::logic_error("a saved connection is read as another one");
    }
  } catch (const soccr::Error&) {
  }
}

std::vector<std::string> saved_connection_seeds() {
  std::vector<std::string> seeds;
  for (const auto state : {SOCCR_ESTABLISHED, SOCCR_LAST_ACK, SOCCR_LISTEN}) {
    soccr_fields fields{};
    fields.size = sizeof fields;
    fields.state = state;
    fields.local = {AF_INET6, 80, 0, {0x20, 1, 0xd, 0xb8, 1}};
    if (state != SOCCR_LISTEN) {
      fields.peer = {AF_INET6, 4711, 0, {0x20, 1, 0xd, 0xb8, 2}};
      fields.flags = SOCCR_HAS_WINDOW;
      fields.inq_len = 20;
      fields.outq_len = 30;
      fields.unsq_len = 10;
      fields.mss_clamp = 1440;
      fields.snd_wnd = fields.max_window = fields.rcv_wnd = 65535;
    }
    const std::string queue(30, 'q');
    const auto bytes = soccr::Saved(fields, queue.data(), queue.data()).encode();
    seeds.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return seeds;
}

std::vector<std::string> own_vdso_bytes() {
  const auto own = criu::memory::own_vdso();
  if (!own.exists()) {
    return {std::string(8192, '\0')};
  }
  return {std::string(reinterpret_cast<const char*>(own.code.start), own.code.end - own.code.start)};
}

}  // namespace

const std::vector<Entry>& entries() {
  namespace type = image::type;
  namespace pb = criu::images;
  static const std::vector<Entry> all{
      {"inventory", read_image<pb::inventory_entry, type::inventory>, inventory_seeds},
      {"pstree", read_image<pb::pstree_entry, type::pstree>, pstree_seeds},
      {"core", read_image<pb::core_entry, type::core>, core_seeds},
      {"mm", read_image<pb::mm_entry, type::mm>, mm_seeds},
      {"fdinfo-image", read_image<pb::fdinfo_entry, type::fdinfo>, fdinfo_seeds},
      {"ghost", read_ghost, ghost_seeds},
      {"pagemap", read_pagemap, pagemap_seeds},
      {"smaps", smaps, [] { return std::vector{file("/proc/self/smaps")}; }},
      {"stat", stat, [] { return std::vector{file("/proc/self/stat")}; }},
      {"status", status, [] { return std::vector{file("/proc/self/status")}; }},
      {"timers", timers,
       [] {
         return std::vector<std::string>{
             "ID: 0\nsignal: 60/00007fff86e452a8\nnotify: signal/pid.2634\nClockID: 0\n"
             "ID: 1\nsignal: 60/00007fff86e452a8\nnotify: none/tid.2634\nClockID: 1\n"};
       }},
      {"limits", limits, [] { return std::vector{file("/proc/self/limits")}; }},
      {"fdinfo", fdinfo,
       [] {
         return std::vector<std::string>{
             "pos:\t0\nflags:\t02\nmnt_id:\t9\nino:\t63107\ntfd:        5 events:       1d data: ffffffffffffffff  "
             "pos:0 "
             "ino:61af sdev:7\n",
             "pos:\t0\nflags:\t02\nmnt_id:\t9\nino:\t63107\nclockid: 0\nticks: 0\nsettime flags: 01\n"
             "it_value: (0, 49406829)\nit_interval: (1, 0)\n",
             "pos:\t0\nflags:\t04002\nmnt_id:\t9\nino:\t63107\neventfd-count:               5a\n"};
       }},
      {"config", config,
       [] {
         return std::vector<std::string>{
             "# comment\ntcp-established\nlog-file \"a \\\"b\\\".log\" # more\nghost-limit "
             "1M\nverbosity=4\nno-shell-job\n"};
       }},
      {"vdso", vdso, own_vdso_bytes},
      {"saved-connection", saved_connection, saved_connection_seeds},
  };
  return all;
}

}  // namespace fuzz
