// SPDX-License-Identifier: GPL-2.0-only
#include "diff.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <functional>

#include "base/error.hpp"
#include "json.hpp"
#include "text.hpp"

namespace crit {

namespace {

// ---- values
// ----------------------------------------------------------------------------------------------------------

std::string short_text(const Json& value) {
  constexpr std::size_t most = 100;
  auto text = value.is_string()       ? escaped(value.get_ref<const std::string&>())
              : value.is_structured() ? fmt::format("{} of {}", value.is_object() ? "an entry" : "a list", value.size())
                                      : value.dump();
  if (text.size() > most) {
    text.resize(most);
    text += "…";
  }
  return text;
}

// By what the elements of a list are told apart; null: by their places.
const char* key_of(const Json& before, const Json& after) {
  for (const char* key : {"id", "fd", "pid", "start", "mnt_id", "orig_id", "pipe_id", "inode_id"}) {
    const auto unique = [key](const Json& list) {
      std::set<std::string> seen;
      return std::all_of(list.begin(), list.end(), [&](const Json& one) {
        return one.is_object() && one.contains(key) && one[key].is_primitive() && seen.insert(one[key].dump()).second;
      });
    };
    if (unique(before) && unique(after)) {
      return key;
    }
  }
  return nullptr;
}

class Comparison {
 public:
  explicit Comparison(const std::function<void(const std::string&)>& say) : say_(say) {}

  void values(const std::string& where, const Json& before, const Json& after) {
    if (before == after) {
      return;
    }
    if (before.is_object() && after.is_object()) {
      members(where, before, after);
    } else if (before.is_array() && after.is_array()) {
      lists(where, before, after);
    } else {
      say_(fmt::format("{}: {} → {}", where, short_text(before), short_text(after)));
    }
  }

 private:
  void one_side(const std::string& where, const Json* before, const Json* after) {
    say_(fmt::format("{}: {} {}", where, before != nullptr ? "only before:" : "only after:",
                     short_text(before != nullptr ? *before : *after)));
  }

  void members(const std::string& where, const Json& before, const Json& after) {
    for (const auto& [name, value] : before.items()) {
      const auto other = after.find(name);
      const auto place = std::string(where).append(".").append(name);
      other != after.end() ? values(place, value, *other) : one_side(place, &value, nullptr);
    }
    for (const auto& [name, value] : after.items()) {
      if (!before.contains(name)) {
        one_side(std::string(where).append(".").append(name), nullptr, &value);
      }
    }
  }

  void lists(const std::string& where, const Json& before, const Json& after) {
    const char* key = key_of(before, after);
    if (key == nullptr) {
      for (std::size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
        const auto place = fmt::format("{}[{}]", where, i);
        if (i < before.size() && i < after.size()) {
          values(place, before[i], after[i]);
        } else {
          one_side(place, i < before.size() ? &before[i] : nullptr, i < after.size() ? &after[i] : nullptr);
        }
      }
      return;
    }
    std::map<std::string, const Json*> others;
    for (const auto& one : after) {
      others[one[key].dump()] = &one;
    }
    const auto place = [&](const Json& one) { return fmt::format("{}[{} {}]", where, key, short_text(one[key])); };
    for (const auto& one : before) {
      const auto other = others.find(one[key].dump());
      if (other == others.end()) {
        one_side(place(one), &one, nullptr);
        continue;
      }
      values(place(one), one, *other->second);
      others.erase(other);
    }
    for (const auto& one : after) {
      if (others.count(one[key].dump()) != 0) {
        one_side(place(one), nullptr, &one);
      }
    }
  }

  const std::function<void(const std::string&)>& say_;
};

// ---- images
// ----------------------------------------------------------------------------------------------------------

bool same_bytes(const std::string& before, const std::string& after) {
  Source a(before);
  Source b(after);
  if (std::filesystem::file_size(before) != std::filesystem::file_size(after)) {
    return false;
  }
  bool same = true;
  a.copy(std::nullopt, 64 * 1024, [&](std::string_view piece) { same = same && b.bytes(piece.size()) == piece; });
  return same;
}

// The entries as pretty JSON has them, with sizes for raw bytes.
Json entries_of(const std::string& image) {
  base::Fd memory(base::check(::memfd_create("crit-diff", MFD_CLOEXEC), "memfd_create", image));
  Source in(image);
  Output out(base::Fd(base::check(::fcntl(memory.get(), F_DUPFD_CLOEXEC, 0), "dup", image)), image);
  decode(in, out, {true, false});
  out.finish();
  base::check(::lseek(memory.get(), 0, SEEK_SET), "lseek", image);
  Source text(std::move(memory), image);
  JsonReader reader(text);
  Json entries = Json::array();
  reader.object([&](const std::string& key) {
    if (key == "magic") {
      reader.string();
    } else {
      Spool none;
      reader.array([&] { entries.push_back(reader.entry(none)); });
    }
  });
  return entries;
}

bool is_raw(const std::string& image) {
  Source source(image);
  try {
    read_magic(source);
  } catch (const base::Error&) {
    return true;
  }
  return false;
}

std::set<std::string> files_of(const Checkpoint& checkpoint) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(checkpoint.path())) {
    const auto name = entry.path().filename().string();
    // Which pages are where says nothing of their contents, which are compared task by task.
    const bool memory = name.starts_with("pages-") || name.starts_with("pagemap-");
    if (entry.is_regular_file() && !memory && (name.ends_with(".img") || name == "stats-dump")) {
      names.insert(name);
    }
  }
  return names;
}

// ---- memory
// ----------------------------------------------------------------------------------------------------------

struct Counts {
  std::uint64_t changed = 0, before = 0, after = 0, same = 0;  // pages
};

// Page by page through what either has saved.
Counts compare_pages(const Pages& before, const Pages& after, std::uint64_t start, std::uint64_t end) {
  Counts counts;
  std::array<char, page_size> one{};
  std::array<char, page_size> other{};
  auto a = before.from(start);
  auto b = after.from(start);
  for (auto at = start; at < end; at += page_size) {
    while (a != before.runs().end() && a->end() <= at) {
      ++a;
    }
    while (b != after.runs().end() && b->end() <= at) {
      ++b;
    }
    const auto next_a = a == before.runs().end() ? end : std::max(a->start, at);
    const auto next_b = b == after.runs().end() ? end : std::max(b->start, at);
    at = std::min(next_a, next_b);
    if (at >= end) {
      break;
    }
    if (next_a != next_b) {
      ++(next_a == at ? counts.before : counts.after);
      continue;
    }
    before.copy(at, page_size, one.data());
    after.copy(at, page_size, other.data());
    ++(one == other ? counts.same : counts.changed);
  }
  return counts;
}

class Difference {
 public:
  Difference(const Checkpoint& before, const Checkpoint& after, Output& to) : before_(before), after_(after), to_(to) {}

  bool run() {
    images();
    memory();
    return any_;
  }

 private:
  void say(const std::string& line) {
    any_ = true;
    to_.write(line + "\n");
  }

  void images() {
    auto all = files_of(before_);
    all.merge(files_of(after_));
    for (const auto& name : all) {
      const auto before = before_.file(name);
      const auto after = after_.file(name);
      if (!before_.has(name) || !after_.has(name)) {
        say(fmt::format("{}: only {}", name, before_.has(name) ? "before" : "after"));
      } else if (!same_bytes(before, after)) {
        image(name, before, after);
      }
    }
  }

  void image(const std::string& name, const std::string& before, const std::string& after) {
    bool found = false;
    if (!is_raw(before) && !is_raw(after)) {
      const std::function<void(const std::string&)> tell = [&](const std::string& line) {
        found = true;
        say(line);
      };
      Comparison(tell).values(name, entries_of(before), entries_of(after));
    }
    if (!found) {
      say(fmt::format("{}: the bytes differ", name));
    }
  }

  void memory() {
    std::set<std::uint32_t> pids;
    for (const auto& task : before_.tree()) {
      pids.insert(task.pid());
    }
    for (const auto& task : after_.tree()) {
      if (pids.count(task.pid()) != 0) {
        const auto name = fmt::format("pagemap-{}.img", task.pid());
        task_memory(task.pid(), Pages::read(before_.path(), name), Pages::read(after_.path(), name));
      }
    }
  }

  // By the areas as they are after; what was unmapped shows in the difference of mm-PID.img.
  void task_memory(std::uint32_t pid, const Pages& before, const Pages& after) {
    const auto mm = after_.mm(pid);
    if (!mm) {
      return;
    }
    for (const auto& area : mm->vmas()) {
      if ((area.status() & guard) != 0 || area.start() >= area.end()) {
        continue;
      }
      const auto counts = compare_pages(before, after, area.start(), area.end());
      if (counts.changed + counts.before + counts.after > 0) {
        const auto path = (area.status() & (file_private | file_shared)) != 0
                              ? " " + after_.path_of(static_cast<std::uint32_t>(area.shmid())).value_or("")
                              : std::string();
        say(fmt::format("memory of {} at {:x}-{:x}{}: {} pages changed, {} only before, {} only after, {} the same",
                        pid, area.start(), area.end(), path, counts.changed, counts.before, counts.after, counts.same));
      }
    }
  }

  const Checkpoint& before_;
  const Checkpoint& after_;
  Output& to_;
  bool any_ = false;
};

}  // namespace

bool diff(const Checkpoint& before, const Checkpoint& after, Output& to) { return Difference(before, after, to).run(); }

}  // namespace crit
