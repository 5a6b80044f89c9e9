// SPDX-License-Identifier: GPL-2.0-only
#include "report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>

#include "facts.hpp"
#include "report_style.hpp"

namespace crit {

namespace {

constexpr double bar_width = 1000;

struct AreaKind {
  const char* name;
  const char* meaning;
};
constexpr AreaKind area_kinds[] = {
    {"anonymous", "private memory"},
    {"heap", "heap"},
    {"stack", "stack"},
    {"file", "mapped files"},
    {"shared", "shared memory and files"},
    {"kernel", "the kernel's own pages"},
};

// Text between tags, and in attributes. Names come from the images: anything may be in them.
std::string safe(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) {
          out += "&#xfffd;";
        } else {
          out += c;
        }
    }
  }
  return out;
}

class Page {
 public:
  Page(const Facts& facts, Output& to) : facts_(facts), to_(to) {}

  void write(const std::string& directory) {
    head(directory);
    tree();
    memory();
    descriptors();
    images();
    timings();
    print("</main>\n</body>\n</html>\n");
  }

 private:
  template <typename... Arguments>
  void print(fmt::format_string<Arguments...> text, Arguments&&... arguments) {
    to_.write(fmt::format(text, std::forward<Arguments>(arguments)...));
  }

  void number(const char* name, const std::string& value) { print("<div><dt>{}</dt><dd>{}</dd></div>\n", name, value); }

  // A table that may be wider than the screen, reachable without a mouse.
  void begin_table(const std::string& caption, const char* classes, const std::string& columns) {
    print(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table class=\"{1}\">\n"
        "<caption>{0}</caption>\n<thead><tr>",
        safe(caption), classes);
    // One word a column; a # before it: numbers.
    for (std::size_t at = 0; at < columns.size();) {
      const auto end = std::min(columns.find('|', at), columns.size());
      const bool number = columns[at] == '#';
      print("<th scope=\"col\"{}>{}</th>", number ? " class=\"number\"" : "",
            columns.substr(at + (number ? 1 : 0), end - at - (number ? 1 : 0)));
      at = end + 1;
    }
    print("</tr></thead>\n<tbody>\n");
  }
  void end_table() { print("</tbody></table></div>\n"); }

  void head(const std::string& directory) {
    const std::string root = facts_.tasks.empty() ? "nothing" : facts_.tasks[0].name;
    print(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
        "<title>Checkpoint of {}</title>\n<style>{}</style>\n</head>\n<body>\n"
        "<a class=\"skip\" href=\"#main\">Skip to the contents</a>\n<main id=\"main\">\n",
        safe(root), report_style);
    print("<h1>Checkpoint of {}</h1>\n<p class=\"soft\">Images in <code>{}</code></p>\n<dl class=\"numbers\">\n",
          safe(root), safe(directory));
    number("Tasks", std::to_string(facts_.tasks.size()));
    number("Threads", std::to_string(facts_.threads));
    number("Memory mapped", long_size(facts_.mapped));
    number("Memory saved", long_size(facts_.saved));
    number("Size of the images", long_size(facts_.image_bytes));
    if (facts_.stats) {
      number("Time frozen", milliseconds(facts_.stats->frozen_time()));
    }
    print(
        "</dl>\n<nav aria-label=\"Contents\"><a href=\"#tree\">Tree</a> · <a href=\"#memory\">Memory</a> · "
        "<a href=\"#descriptors\">Descriptors</a> · <a href=\"#images\">Images</a> · <a "
        "href=\"#timings\">Timings</a></nav>\n");
  }

  static std::string milliseconds(std::uint64_t microseconds) {
    return fmt::format("{:.1f} ms", static_cast<double>(microseconds) / 1000);
  }

  void tree() {
    print("<section aria-labelledby=\"tree\">\n<h2 id=\"tree\">Process tree</h2>\n");
    begin_table("Tasks, each below its parent", "tree", "Task|#Pid|#Parent|State|#Threads|#Descriptors|#Mapped|#Saved");
    for (const auto& task : facts_.tasks) {
      // Deep trees keep to the page.
      print(
          "<tr><th scope=\"row\" style=\"padding-left:{}rem\"><a href=\"#task-{}\">{}</a></th>"
          "<td class=\"number\">{}</td><td class=\"number\">{}</td><td>{}</td><td class=\"number\">{}</td>"
          "<td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>\n",
          1.25 * static_cast<double>(std::min<std::size_t>(task.depth, 20)), task.pid, safe(task.name), task.pid,
          task.ppid, safe(task.state), task.threads.size(), task.descriptors.size(), long_size(task.mapped),
          long_size(task.saved));
    }
    end_table();
    print("</section>\n");
  }

  // Areas side by side, as wide as they are large.
  void area_bar(const TaskFacts& task, bool saved) {
    const auto total = static_cast<double>(saved ? task.saved : task.mapped);
    print(
        "<svg class=\"bar{}\" viewBox=\"0 0 {} 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{} of task "
        "{}: {}\">",
        saved ? " thin" : "", bar_width, saved ? "Saved memory" : "Mapped memory", task.pid,
        long_size(saved ? task.saved : task.mapped));
    double at = 0;
    for (const auto& area : task.areas) {
      const auto size = saved ? area.saved : area.size();
      const auto width = total > 0 ? bar_width * static_cast<double>(size) / total : 0;
      if (size > 0) {
        print("<rect class=\"{}\" x=\"{:.3f}\" y=\"0\" width=\"{:.3f}\" height=\"10\"><title>{} {}, {}</title></rect>",
              area.kind, at, width, safe(area.what.empty() ? area.kind : area.what), area.rights, long_size(size));
      }
      at += width;
    }
    print("</svg>\n");
  }

  void legend(const TaskFacts& task) {
    print("<ul class=\"legend\">");
    for (const auto& kind : area_kinds) {
      std::uint64_t mapped = 0;
      std::uint64_t saved = 0;
      for (const auto& area : task.areas) {
        mapped += area.kind == kind.name ? area.size() : 0;
        saved += area.kind == kind.name ? area.saved : 0;
      }
      if (mapped > 0) {
        print("<li><span class=\"{}\"></span>{}: {}, {} saved</li>", kind.name, kind.meaning, long_size(mapped),
              long_size(saved));
      }
    }
    print("</ul>\n");
  }

  void memory() {
    print(
        "<section aria-labelledby=\"memory\">\n<h2 id=\"memory\">Memory</h2>\n<p class=\"soft\">The upper bar is what "
        "is mapped, in the order of the addresses and to scale; the lower one is the part of it whose contents are "
        "in the checkpoint, to a scale of its own. Shared objects are saved once, outside of the tasks.</p>\n");
    for (const auto& task : facts_.tasks) {
      print("<article id=\"task-{0}\" aria-labelledby=\"memory-{0}\">\n<h3 id=\"memory-{0}\">{1} ({0})</h3>\n",
            task.pid, safe(task.name));
      if (task.areas.empty()) {
        print("<p class=\"soft\">A {} has no memory.</p>\n</article>\n", safe(task.state));
        continue;
      }
      print("<p class=\"mono\">{}</p>\n", safe(task.exe));
      area_bar(task, false);
      area_bar(task, true);
      legend(task);
      areas(task);
      print("</article>\n");
    }
    print("</section>\n");
  }

  void areas(const TaskFacts& task) {
    print("<details><summary>{} areas</summary>\n", task.areas.size());
    begin_table(fmt::format("Memory areas of {} ({})", task.name, task.pid), "areas",
                "Addresses|Rights|#Size|#Saved|Kind|What");
    for (const auto& area : task.areas) {
      print(
          "<tr><td class=\"address\">{:x}-{:x}</td><td class=\"mono\">{}</td><td class=\"number\">{}</td>"
          "<td class=\"number\">{}{}</td><td>{}</td><td class=\"path\">{}</td></tr>\n",
          area.start, area.end, area.rights, long_size(area.size()), area.saved > 0 ? long_size(area.saved) : "",
          area.parent > 0 ? fmt::format(" ({} in the parent)", long_size(area.parent)) : "", area.kind,
          safe(area.what));
    }
    end_table();
    print("</details>\n");
  }

  // All of them but `self`, the first few by name: a file may be open in thousands of tasks.
  static std::string holders_text(const std::vector<Holder>& holders, const Holder& self, bool self_among) {
    constexpr std::size_t most = 8;
    const auto others = holders.size() - (self_among ? 1 : 0);
    std::string text;
    std::size_t told = 0;
    for (auto holder = holders.begin(); holder != holders.end() && told < most; ++holder) {
      if (holder->pid != self.pid || holder->fd != self.fd) {
        text += fmt::format("{}<a href=\"#fd-{}-{}\">{} of {}</a>", told++ == 0 ? "" : ", ", holder->pid, holder->fd,
                            holder->fd, holder->pid);
      }
    }
    return others > told ? text + fmt::format(" and {} more", others - told) : text;
  }

  std::string shared_text(const TaskFacts& task, const DescriptorFacts& fd) {
    const Holder self{task.pid, fd.fd};
    auto text = holders_text(facts_.holders.at(fd.file), self, true);
    if (!text.empty()) {
      text = "same file: " + text;
    }
    if (const auto peer = facts_.ends.find(fd.peer); peer != facts_.ends.end()) {
      const auto others = holders_text(peer->second, self, false);
      text += others.empty() ? "" : (text.empty() ? "" : "; ") + std::string("other end: ") + others;
    } else if (!fd.peer.empty()) {
      text += (text.empty() ? "" : "; ") + std::string("other end: outside");
    }
    return text;
  }

  void descriptors() {
    print("<section aria-labelledby=\"descriptors\">\n<h2 id=\"descriptors\">Open descriptors</h2>\n");
    for (const auto& task : facts_.tasks) {
      if (task.descriptors.empty()) {
        continue;
      }
      begin_table(fmt::format("Descriptors of {} ({})", task.name, task.pid), "descriptors",
                  "#Descriptor|Kind|What|Shared with");
      for (const auto& fd : task.descriptors) {
        print(
            "<tr id=\"fd-{}-{}\"><th scope=\"row\" class=\"number\">{}</th><td>{}{}</td><td class=\"path\">{}</td>"
            "<td>{}</td></tr>\n",
            task.pid, fd.fd, fd.fd, pb::fd_types_Name(fd.type), fd.close_on_exec ? ", closed on exec" : "",
            safe(fd.what), shared_text(task, fd));
      }
      end_table();
    }
    print("</section>\n");
  }

  void bar(double part) {
    print(
        "<svg class=\"bar\" viewBox=\"0 0 {0} 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><rect "
        "class=\"plain\" "
        "x=\"0\" y=\"0\" width=\"{1:.3f}\" height=\"10\"></rect></svg>",
        bar_width, bar_width * part);
  }

  void images() {
    print("<section aria-labelledby=\"images\">\n<h2 id=\"images\">Where the bytes are</h2>\n");
    std::map<std::string, std::uint64_t> groups;
    for (const auto& image : facts_.images) {
      groups[image.group] += image.size;
    }
    print("<ul class=\"legend\">");
    for (const auto& [group, size] : groups) {
      print("<li>{}: {}</li>", group, long_size(size));
    }
    print("</ul>\n");
    begin_table("Files of the checkpoint, the largest first", "images", "File|Holds|#Bytes|Share");
    for (const auto& image : facts_.images) {
      print("<tr><th scope=\"row\" class=\"mono\">{}</th><td>{}</td><td class=\"number\">{}</td><td>", safe(image.name),
            image.group, image.size);
      bar(facts_.image_bytes > 0 ? static_cast<double>(image.size) / static_cast<double>(facts_.image_bytes) : 0);
      print("</td></tr>\n");
    }
    end_table();
    print("</section>\n");
  }

  void timings() {
    print("<section aria-labelledby=\"timings\">\n<h2 id=\"timings\">Timings of the dump</h2>\n");
    if (!facts_.stats) {
      print("<p class=\"soft\">There is no stats-dump beside the images.</p>\n</section>\n");
      return;
    }
    const auto& stats = *facts_.stats;
    struct Step {
      const char* name;
      std::uint32_t time;
    };
    const std::array<Step, 4> steps{{{"Freezing the tree", stats.freezing_time()},
                                     {"Frozen", stats.frozen_time()},
                                     {"Collecting memory, of that", stats.memdump_time()},
                                     {"Writing memory", stats.memwrite_time()}}};
    std::uint32_t longest = 1;
    for (const auto& step : steps) {
      longest = std::max(longest, step.time);
    }
    begin_table("How long the dump took", "timings", "Step|#Time|To scale");
    for (const auto& step : steps) {
      print("<tr><th scope=\"row\">{}</th><td class=\"number\">{}</td><td>", step.name, milliseconds(step.time));
      bar(static_cast<double>(step.time) / longest);
      print("</td></tr>\n");
    }
    end_table();
    print("<p>{} pages looked at, {} written, {} left in the parent snapshot.</p>\n</section>\n", stats.pages_scanned(),
          stats.pages_written(), stats.pages_skipped_parent());
  }

  const Facts& facts_;
  Output& to_;
};

}  // namespace

void report(const Checkpoint& checkpoint, Output& to) {
  const auto facts = facts_of(checkpoint);
  std::unique_ptr<char, decltype(&std::free)> path(::realpath(checkpoint.path().c_str(), nullptr), std::free);
  Page(facts, to).write(path != nullptr ? path.get() : checkpoint.path());
}

}  // namespace crit
