// SPDX-License-Identifier: LGPL-2.1-only
#include "stats.hpp"

#include "image/directory.hpp"
#include "log.hpp"

namespace criu {

namespace {

std::string time_line(const char* what, std::uint32_t us) { return fmt::format("{}: {} us\n", what, us); }
std::string page_line(const char* what, std::uint64_t pages) {
  return fmt::format("{}: {} ({:#x})\n", what, pages, pages);
}

void write(const Options& options, const image::Type& type, const images::stats_entry& entry) {
  image::Directory(work_dir(options)).put(type, 0, entry);
}

void display(const Options& options, std::string text) {
  if (options.display_stats) {
    text.pop_back();
    log::say(text);
  }
}

}  // namespace

std::string describe(const images::dump_stats_entry& stats) {
  std::string text = "Displaying dump stats:\n";
  text += time_line("Freezing time", stats.freezing_time());
  text += time_line("Frozen time", stats.frozen_time());
  text += time_line("Memory dump time", stats.memdump_time());
  text += time_line("Memory write time", stats.memwrite_time());
  if (stats.has_irmap_resolve()) {
    text += time_line("IRMAP resolve time", stats.irmap_resolve());
  }
  text += page_line("Memory pages scanned", stats.pages_scanned());
  text += page_line("Memory pages skipped from parent", stats.pages_skipped_parent());
  text += page_line("Memory pages written", stats.pages_written());
  text += page_line("Lazy memory pages", stats.pages_lazy());
  return text;
}

std::string describe(const images::restore_stats_entry& stats) {
  std::string text = "Displaying restore stats:\n";
  text += page_line("Pages compared", stats.pages_compared());
  text += page_line("Pages skipped COW", stats.pages_skipped_cow());
  if (stats.has_pages_restored()) {
    text += page_line("Pages restored", stats.pages_restored());
  }
  text += time_line("Restore time", stats.restore_time());
  text += time_line("Forking time", stats.forking_time());
  return text;
}

void finish_stats(const Options& options, images::dump_stats_entry stats) {
  // Required fields of the format, whether or not anybody had something to count.
  stats.set_freezing_time(stats.freezing_time());
  stats.set_frozen_time(stats.frozen_time());
  stats.set_memdump_time(stats.memdump_time());
  stats.set_memwrite_time(stats.memwrite_time());
  stats.set_pages_scanned(stats.pages_scanned());
  stats.set_pages_skipped_parent(stats.pages_skipped_parent());
  stats.set_pages_written(stats.pages_written());
  stats.set_pages_lazy(stats.pages_lazy());
  images::stats_entry entry;
  *entry.mutable_dump() = stats;
  write(options, image::type::stats_dump, entry);
  display(options, describe(stats));
}

void finish_stats(const Options& options, images::restore_stats_entry stats) {
  stats.set_pages_compared(stats.pages_compared());
  stats.set_pages_skipped_cow(stats.pages_skipped_cow());
  stats.set_forking_time(stats.forking_time());
  stats.set_restore_time(stats.restore_time());
  images::stats_entry entry;
  *entry.mutable_restore() = stats;
  write(options, image::type::stats_restore, entry);
  display(options, describe(stats));
}

}  // namespace criu
