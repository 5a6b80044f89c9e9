// SPDX-License-Identifier: GPL-2.0-only
#include "memory/pages.hpp"

#include <fcntl.h>
#include <pagemap.pb.h>
#include <sys/mman.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>

#include "base/error.hpp"
#include "image/directory.hpp"
#include "memory/page_writer.hpp"

namespace image = criu::image;
namespace memory = criu::memory;
using memory::page_size;

namespace {

struct Scratch {
  std::string path = "/tmp/criu-unit-XXXXXX";
  Scratch() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
  ~Scratch() { std::filesystem::remove_all(path); }
};

struct Entry {
  std::uint64_t start, pages;
  std::uint32_t flags;
};

void put(const image::Directory& dir, std::uint64_t number, std::uint32_t pages_id, const std::vector<Entry>& entries) {
  auto writer = dir.create(image::type::pagemap, number);
  criu::images::pagemap_head head;
  head.set_pages_id(pages_id);
  writer.write(head);
  std::uint64_t present = 0;
  for (const auto& e : entries) {
    criu::images::pagemap_entry entry;
    entry.set_vaddr(e.start);
    entry.set_compat_nr_pages(0);
    entry.set_nr_pages(e.pages);
    entry.set_flags(e.flags);
    writer.write(entry);
    present += (e.flags & 4) != 0 && e.pages < 1000 ? e.pages : 0;
  }
  writer.finish();
  const auto pages = dir.create_raw(image::type::pages, pages_id);
  REQUIRE(::ftruncate(pages.get(), static_cast<off_t>(present * page_size)) == 0);
}

base::Fd open_mem() { return base::Fd(::open("/proc/self/mem", O_RDONLY | O_CLOEXEC)); }

}  // namespace

TEST_CASE("written pages come back in order, whatever the number of workers") {
  Scratch scratch;
  image::Directory dir(scratch.path);
  const auto file = dir.create_raw(image::type::pages, 1);
  const std::uint64_t pages = GENERATE(3U, 700U, 5000U);  // one piece; several; enough for two workers
  auto* at = static_cast<std::byte*>(
      ::mmap(nullptr, pages * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(at != MAP_FAILED);
  std::uint64_t full = 0;
  for (std::uint64_t i = 0; i < pages; ++i) {
    if (i % 3 != 1) {  // every third page is zeros
      std::memcpy(at + i * page_size + (i * 8) % page_size, &i, sizeof i);
      full += i != 0 ? 1 : 0;
    }
  }
  const auto start = reinterpret_cast<std::uint64_t>(at);
  memory::PageWriter writer(::getpid(), open_mem(), base::Fd(::dup(file.get())));
  const auto written = writer.write({{start, start + pages * page_size, true, true, 6}});
  CHECK(writer.bytes() == full * page_size);
  std::uint64_t offset = 0, last = 0;
  for (const auto& run : written) {
    CHECK(run.flags == 6);
    CHECK(run.start >= last);
    last = run.start + run.pages * page_size;
    for (std::uint64_t i = 0; i < run.pages; ++i, offset += page_size) {
      std::byte page[page_size];
      REQUIRE(::pread(file.get(), page, sizeof page, static_cast<off_t>(offset)) == page_size);
      REQUIRE(std::memcmp(page, at + (run.start - start) + i * page_size, page_size) == 0);
    }
  }
  CHECK(offset == writer.bytes());
  ::munmap(at, pages * page_size);
}

TEST_CASE("memory that may not be read is read all the same, and zeros are kept where they must be") {
  Scratch scratch;
  image::Directory dir(scratch.path);
  const auto file = dir.create_raw(image::type::pages, 1);
  auto* at = static_cast<std::byte*>(
      ::mmap(nullptr, 4 * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(at != MAP_FAILED);
  std::memset(at, 7, page_size);
  std::memset(at + page_size, 0, 3 * page_size);
  REQUIRE(::mprotect(at, 4 * page_size, PROT_NONE) == 0);
  const auto start = reinterpret_cast<std::uint64_t>(at);
  memory::PageWriter writer(::getpid(), open_mem(), base::Fd(::dup(file.get())));
  const auto written = writer.write({{start, start + 2 * page_size, false, false, 4},
                                     {start + 2 * page_size, start + 4 * page_size, false, false, 4}});
  CHECK(writer.bytes() == 4 * page_size);
  REQUIRE(written.size() == 2);  // entries end where areas do
  CHECK(written[0].pages == 2);
  CHECK(written[1].pages == 2);
  ::munmap(at, 4 * page_size);
}

TEST_CASE("a pagemap resolves what it leaves to its parents") {
  Scratch scratch;
  std::filesystem::create_directories(scratch.path + "/old");
  std::filesystem::create_directories(scratch.path + "/new");
  std::filesystem::create_symlink("../old", scratch.path + "/new/parent");
  const image::Directory old_dir(scratch.path + "/old"), new_dir(scratch.path + "/new");
  put(old_dir, 7, 1, {{0x10000, 4, 4}, {0x14000, 2, 4}});
  put(new_dir, 7, 1, {{0x10000, 1, 4}, {0x12000, 3, 1}, {0x20000, 1, 4}});
  const auto map = memory::Pagemap::read(new_dir, image::type::pagemap, 7);
  REQUIRE(map.runs().size() == 4);
  CHECK(map.runs()[0].offset == 0);
  CHECK(map.runs()[1].start == 0x12000);
  CHECK(map.runs()[1].size == 2 * page_size);
  CHECK(map.runs()[1].offset == 2 * page_size);
  CHECK(map.runs()[2].start == 0x14000);
  CHECK(map.runs()[2].size == page_size);
  CHECK(map.runs()[2].offset == 4 * page_size);
  CHECK(map.runs()[3].offset == page_size);
  CHECK(map.fd(map.runs()[0]) != map.fd(map.runs()[1]));
  CHECK(map.fd(map.runs()[1]) == map.fd(map.runs()[2]));
  CHECK(map.fd(map.runs()[0]) == map.fd(map.runs()[3]));
}

TEST_CASE("pagemaps that cannot be true are refused") {
  Scratch scratch;
  std::filesystem::create_directories(scratch.path + "/a");
  const image::Directory dir(scratch.path + "/a");
  const auto read = [&] { return memory::Pagemap::read(dir, image::type::pagemap, 7); };
  CHECK_THROWS_AS(read(), base::Error);  // no image
  put(dir, 7, 1, {{0x10001, 1, 4}});
  CHECK_THROWS_WITH(read(), Catch::Contains("pagemap-7.img"));  // not a page
  put(dir, 7, 1, {{0x20000, 1, 4}, {0x10000, 1, 4}});
  CHECK_THROWS_AS(read(), base::Error);  // descending
  put(dir, 7, 1, {{0x10000, ~0ULL / 4096, 4}});
  CHECK_THROWS_AS(read(), base::Error);  // around the end of the address space
  put(dir, 7, 1, {{0x10000, 2, 4}});
  std::filesystem::resize_file(scratch.path + "/a/pages-1.img", page_size);
  CHECK_THROWS_WITH(read(), Catch::Contains("pages-1.img"));  // pages missing
  put(dir, 7, 1, {{0x10000, 2, 1}});
  CHECK_THROWS_AS(read(), base::Error);  // no parent
  std::filesystem::create_symlink(".", scratch.path + "/a/parent");
  CHECK_THROWS_WITH(read(), Catch::Contains("no end"));  // its own parent
  put(dir, 7, 1, {{0x10000, 2, 2}});
  CHECK_THROWS_WITH(read(), Catch::Contains("lazy"));
}
