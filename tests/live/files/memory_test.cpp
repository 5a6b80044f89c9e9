// SPDX-License-Identifier: GPL-2.0-only
// memfd files and shared anonymous memory.
#include <fcntl.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "restore_context.hpp"
#include "scene.hpp"

using scene::Scene;

namespace {

std::string content(int fd, std::size_t size, off_t at = 0) {
  std::string text(size, '\0');
  const auto got = ::pread(fd, text.data(), text.size(), at);
  MUST(got >= 0);
  text.resize(static_cast<std::size_t>(got));
  return text;
}

criu::procfs::Area find_area(pid_t pid, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/smaps");
  std::ostringstream text;
  text << file.rdbuf();
  for (auto& area : criu::procfs::parse_smaps(text.str())) {
    if (area.name == name) {
      return area;
    }
  }
  throw scene::Failure{"no area " + name};
}

}  // namespace

TEST_CASE("memfd: contents, holes, offset, seals, further openings") {
  Scene scene({{[] {
                  MUST(::memfd_create("kitchen", MFD_ALLOW_SEALING) == 0);
                  MUST(::write(0, "memfd", 5) == 5);
                  MUST(::pwrite(0, "far", 3, 10 << 20) == 3);
                  MUST(::open("/proc/self/fd/0", O_RDONLY) == 1);
                  MUST(::fcntl(0, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE) == 0);
                  MUST(::memfd_create("plain", MFD_CLOEXEC) == 2);
                  MUST(::memfd_create("empty", MFD_ALLOW_SEALING) == 3);
                  MUST(::fchmod(3, 0600) == 0 && ::fchown(3, 5, 6) == 0);
                },
                [] {
                  MUST(::lseek(0, 0, SEEK_CUR) == 5 && ::lseek(1, 0, SEEK_CUR) == 0);
                  MUST(content(1, 5) == "memfd" && content(1, 100, 10 << 20) == "far");
                  struct stat st {};
                  MUST(::fstat(0, &st) == 0 && st.st_size == (10 << 20) + 3 && st.st_blocks == 16);
                  MUST(::fcntl(2, F_GET_SEALS) == F_SEAL_SEAL && ::fcntl(3, F_GET_SEALS) == 0);
                  MUST(::fstat(3, &st) == 0 && st.st_mode == (S_IFREG | 0600) && st.st_uid == 5 && st.st_gid == 6);
                  MUST(::fcntl(0, F_GET_SEALS) == (F_SEAL_SHRINK | F_SEAL_WRITE));
                  MUST(::pwrite(0, "x", 1, 0) < 0 && errno == EPERM);
                }}});
  CHECK(scene.dump().empty());
  scene.restored = [](const criu::RestoreContext& context) { context.shared_objects.seal(); };
  scene.restore();
}

TEST_CASE("shared anonymous memory is found by its mapping and looks as before") {
  std::byte* at = nullptr;
  Scene scene({{[&] {
                  at = static_cast<std::byte*>(
                      ::mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
                  std::memcpy(at, "shared", 6);
                  std::memcpy(at + (1 << 19), "middle", 6);
                },
                [] {}}});
  const criu::image::Directory images(scene.images.path());
  criu::DumpContext context{.options = scene.options, .images = images};
  auto area = find_area(scene.pids()[0], "/dev/zero (deleted)");
  {
    criu::files::Collector collector(context);
    const auto reference = collector.reference_mapping(scene.pids()[0], area);
    CHECK(reference.memfd);
    CHECK(reference.access == O_RDWR);
    CHECK(collector.reference_mapping(scene.pids()[0], area).id == reference.id);
    collector.finish();
  }
  scene.kill();
  const criu::Checkpoint checkpoint;
  criu::RestoreContext restore{.options = scene.options,
                               .images = criu::image::Directory(scene.images.path()),
                               .checkpoint = checkpoint,
                               .files = criu::files::Plan()};
  restore.shared_objects.restore(restore);
  const auto& object = restore.shared_objects.memfd(1, "the test");
  CHECK(std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(object.fd.get())) == "/dev/zero (deleted)");
  CHECK(content(object.fd.get(), 6) == "shared");
  CHECK(content(object.fd.get(), 6, 1 << 19) == "middle");
  struct stat st {};
  REQUIRE(::fstat(object.fd.get(), &st) == 0);
  CHECK(st.st_size == 1 << 20);
  CHECK(st.st_blocks == 16);
}

TEST_CASE("huge pages, where some are reserved") {
  const int probe = ::memfd_create("probe", MFD_HUGETLB | MFD_CLOEXEC);
  void* at = probe < 0 ? MAP_FAILED : ::mmap(nullptr, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, probe, 0);
  if (at == MAP_FAILED) {
    WARN("no huge pages reserved: not tested");
    ::close(probe);
    return;
  }
  ::munmap(at, 2 << 20);
  ::close(probe);
  Scene scene({{[] {
                  MUST(::memfd_create("huge", MFD_HUGETLB | MFD_ALLOW_SEALING) == 0);
                  MUST(::ftruncate(0, 4 << 20) == 0);
                  auto* bytes =
                      static_cast<char*>(::mmap(nullptr, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 2 << 20));
                  MUST(bytes != MAP_FAILED);
                  std::strcpy(bytes, "huge");
                },
                [] {
                  struct stat st {};
                  MUST(::fstat(0, &st) == 0 && st.st_size == 4 << 20);
                  MUST(content(0, 4, 2 << 20) == "huge");
                }}});
  CHECK(scene.dump().empty());
  scene.restore();
}
