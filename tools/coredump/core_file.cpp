// SPDX-License-Identifier: GPL-2.0-only
#include "core_file.hpp"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <vector>

#include "base/error.hpp"
#include "notes.hpp"

namespace coredump {

namespace {

using base::Error;
using crit::page_size;
namespace pb = crit::pb;

// A file under a temporary name, until it is complete.
class Draft {
 public:
  explicit Draft(std::string name) : name_(std::move(name)), temporary_(name_ + ".XXXXXX") {
    fd_ = base::Fd(base::check(::mkostemp(temporary_.data(), O_CLOEXEC), "create", name_));
  }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;
  ~Draft() {
    if (fd_) {
      ::unlink(temporary_.c_str());
    }
  }

  void put(std::uint64_t at, std::string_view bytes) {
    while (!bytes.empty()) {
      const auto done =
          base::check(::pwrite(fd_.get(), bytes.data(), bytes.size(), static_cast<off_t>(at)), "write", name_);
      at += static_cast<std::uint64_t>(done);
      bytes.remove_prefix(static_cast<std::size_t>(done));
    }
  }
  // Pages of zeros become holes.
  void put_sparse(std::uint64_t at, std::string_view bytes) {
    static const std::string zeros(page_size, '\0');
    std::size_t from = 0;
    for (std::size_t page = 0; page < bytes.size(); page += page_size) {
      const auto one = bytes.substr(page, page_size);
      if (one == std::string_view(zeros).substr(0, one.size())) {
        put(at + from, bytes.substr(from, page - from));
        from = page + one.size();
      }
    }
    put(at + from, bytes.substr(std::min(from, bytes.size())));
  }
  void finish(std::uint64_t size) {
    base::check(::ftruncate(fd_.get(), static_cast<off_t>(size)), "write", name_);
    base::check(::rename(temporary_.c_str(), name_.c_str()), "create", name_);
    base::check(::close(fd_.release()), "write", name_);
  }

 private:
  std::string name_, temporary_;
  base::Fd fd_;
};

template <typename Struct>
std::string_view bytes_of(const Struct& one) {
  return {reinterpret_cast<const char*>(&one), sizeof one};
}

std::uint64_t rounded(std::uint64_t size) { return (size + page_size - 1) / page_size * page_size; }

std::vector<const pb::vma_entry*> areas_of(const pb::mm_entry& mm, const std::string& name) {
  std::vector<const pb::vma_entry*> areas;
  for (const auto& area : mm.vmas()) {
    if ((area.status() & crit::guard) != 0) {
      continue;
    }
    const auto last = areas.empty() ? 0 : areas.back()->end();
    if (area.start() >= area.end() || area.start() < last || area.start() % page_size != 0 ||
        area.end() % page_size != 0) {
      throw Error("corrupt image", fmt::format("{}: an area from {:#x} to {:#x}", name, area.start(), area.end()), 0);
    }
    areas.push_back(&area);
  }
  return areas;
}

Elf64_Ehdr elf_header(std::size_t segments) {
  Elf64_Ehdr head{};
  std::copy_n(ELFMAG, SELFMAG, head.e_ident);
  head.e_ident[EI_CLASS] = ELFCLASS64;
  head.e_ident[EI_DATA] = ELFDATA2LSB;
  head.e_ident[EI_VERSION] = EV_CURRENT;
  head.e_type = ET_CORE;
  head.e_machine = EM_X86_64;
  head.e_version = EV_CURRENT;
  head.e_phoff = sizeof head;
  head.e_ehsize = sizeof head;
  head.e_phentsize = sizeof(Elf64_Phdr);
  head.e_phnum = static_cast<Elf64_Half>(std::min<std::size_t>(segments, PN_XNUM));
  return head;
}

}  // namespace

std::uint64_t size_in_core(const pb::vma_entry& area, const crit::Pages& pages) {
  const auto full = area.end() - area.start();
  constexpr std::uint32_t of_a_file = crit::file_private | crit::file_shared;
  if ((area.status() & (crit::vvar | crit::vsyscall | crit::vdso)) != 0) {
    return full;
  }
  if ((area.prot() & (PROT_READ | PROT_WRITE | PROT_EXEC)) == 0 ||
      (area.status() & (of_a_file | crit::anon_private | crit::anon_shared)) == 0) {
    return 0;
  }
  const bool code = (area.status() & of_a_file) != 0 && (area.prot() & PROT_EXEC) != 0;
  return code && !pages.any(area.start() + page_size, full - page_size) ? page_size : full;
}

void write_core(const crit::Checkpoint& checkpoint, const pb::pstree_entry& task, Contents& contents,
                const std::string& directory) {
  const auto mm = checkpoint.mm(task.pid());
  if (!mm) {
    throw Error("no core file", fmt::format("task {} has no memory (mm-{}.img)", task.pid(), task.pid()), 0);
  }
  const auto pages = crit::Pages::read(checkpoint.path(), fmt::format("pagemap-{}.img", task.pid()));
  const auto areas = areas_of(*mm, checkpoint.file(fmt::format("mm-{}.img", task.pid())));
  const auto notes = notes_of(checkpoint, task, *mm, pages);

  // More segments than the header can count are counted in a section, as the kernel does.
  const auto segments = areas.size() + 1;
  const bool extended = segments >= PN_XNUM;
  auto head = elf_header(segments);
  const auto notes_at = sizeof head + segments * sizeof(Elf64_Phdr) + (extended ? sizeof(Elf64_Shdr) : 0);
  std::string front;
  if (extended) {
    head.e_shoff = sizeof head + segments * sizeof(Elf64_Phdr);
    head.e_shentsize = sizeof(Elf64_Shdr);
    head.e_shnum = 1;
  }
  front += bytes_of(head);
  front += bytes_of(Elf64_Phdr{PT_NOTE, 0, notes_at, 0, 0, notes.size(), 0, 4});
  auto at = rounded(notes_at + notes.size());
  std::vector<std::uint64_t> places;
  for (const auto* area : areas) {
    const auto size = size_in_core(*area, pages);
    const Elf64_Word rights = ((area->prot() & PROT_READ) != 0 ? PF_R : 0U) |
                              ((area->prot() & PROT_WRITE) != 0 ? PF_W : 0U) |
                              ((area->prot() & PROT_EXEC) != 0 ? PF_X : 0U);
    front += bytes_of(Elf64_Phdr{PT_LOAD, rights, at, area->start(), 0, size, area->end() - area->start(), page_size});
    places.push_back(at);
    at += size;
  }
  if (extended) {
    Elf64_Shdr count{};
    count.sh_info = static_cast<Elf64_Word>(segments);
    front += bytes_of(count);
  }
  Draft draft(fmt::format("{}/core.{}", directory, task.pid()));
  draft.put(0, front + notes);
  for (std::size_t i = 0; i < areas.size(); ++i) {
    const auto& area = *areas[i];
    const auto size = size_in_core(area, pages);
    if (size > 0) {
      contents.each(area, size, pages, [&](std::uint64_t address, std::string_view bytes) {
        draft.put_sparse(places[i] + (address - area.start()), bytes);
      });
    }
  }
  draft.finish(at);
}

}  // namespace coredump
