// SPDX-License-Identifier: GPL-2.0-only
// The example plugin (libcriu-core/examples/plugin.c), which the build puts beside this program.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "harness/live.hpp"

using namespace live;

namespace {

std::string plugins() { return std::filesystem::read_symlink("/proc/self/exe").parent_path() / "plugins"; }

std::string notes(const std::string& images) { return read_text(images + "/example-plugin.txt"); }

void expect_notes(const std::string& images, const std::string& wanted) {
  if (notes(images).find(wanted) == std::string::npos) {
    std::ofstream(images + "/../failures") << "not in the notes of the plugin: " << wanted << "\n" << notes(images);
  }
}

}  // namespace

LIVE_TEST("plugins: a file and every hook", {.dump = {"--libdir", plugins()},
                                             .restore = {"--libdir", plugins()},
                                             .tamper =
                                                 [](const std::string& images) {
                                                   const auto pid = read_text(images + "/../ready");
                                                   const auto root = pid.substr(0, pid.find('\n'));
                                                   expect_notes(images, "init 0\npause " + root + "\n");
                                                   expect_notes(images, "\ncheckpoint " + root + "\n");
                                                   expect_notes(images, "\nlate " + root + "\nexit 0\n");
                                                   std::ofstream(images + "/../where") << images;
                                                 },
                                             .not_dry = true}) {
  const int fd = ::open("/dev/fuse", O_RDWR | O_NONBLOCK);
  if (fd < 0) {
    skip("no /dev/fuse");
  }
  Child child([] { checkpoint_here(); });
  checkpoint_here();
  CHECK_EQ(::fcntl(fd, F_GETFL) & (O_ACCMODE | O_NONBLOCK), O_RDWR | O_NONBLOCK);
  const auto images = read_text(scratch("where"));
  const auto told = notes(images);
  CHECK(told.find("init 2\nrestore 0\nforked 0\nresume ") != std::string::npos);
  CHECK(told.find("\nresume " + std::to_string(child.pid()) + "\n") != std::string::npos);
  CHECK_EQ(child.finish(), 0);
}

LIVE_TEST("plugins: one that the dump used is missing at the restore",
          {.dump = {"--libdir", plugins()}, .restore_fails = "Missing required plugin: example"}) {
  if (::open("/dev/fuse", O_RDWR) < 0) {
    skip("no /dev/fuse");
  }
  checkpoint_here();
}

LIVE_TEST("plugins: a file that none of them knows",
          {.dump = {"--libdir", plugins()}, .dump_fails = "is a userfaultfd, and no plugin knows it"}) {
  if (::syscall(SYS_userfaultfd, O_CLOEXEC) < 0) {
    skip("no userfaultfd");
  }
  checkpoint_here();
}

LIVE_TEST("plugins: the directory is not there",
          {.dump = {"--libdir", "/nowhere/at/all"}, .dump_fails = "open the directory of plugins: /nowhere/at/all"}) {
  checkpoint_here();
}

LIVE_TEST("plugins: one that says no at the restore",
          {.dump = {"--libdir", plugins()},
           .restore = {"--libdir", plugins()},
           .restore_fails = "plugin example: a plugin's file",
           .tamper = [](const std::string& images) {
             for (const auto& entry : std::filesystem::directory_iterator(images)) {
               if (entry.path().filename().string().starts_with("example-plugin-")) {
                 std::ofstream(entry.path()) << "nonsense";
               }
             }
           }}) {
  if (::open("/dev/fuse", O_RDWR) < 0) {
    skip("no /dev/fuse");
  }
  checkpoint_here();
}
