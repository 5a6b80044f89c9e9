// SPDX-License-Identifier: LGPL-2.1-only
#include "namespaces/restored_cgroups.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <set>
#include <sstream>

#include "base/error.hpp"
#include "kernel/cgroups.hpp"
#include "kernel/procfs.hpp"
#include "log.hpp"
#include "namespaces/cgroup_setter.hpp"
#include "namespaces/cgroups.hpp"
#include "namespaces/user.hpp"
#include "task/master.hpp"

namespace criu::namespaces {

using base::check;
using base::Error;

namespace {

[[noreturn]] void corrupt(const std::string& why) { throw Error("corrupt checkpoint", "cgroup.img: " + why, 0); }

// The parts of a path, none of which leads upwards.
std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> parts;
  std::istringstream text(path);
  for (std::string part; std::getline(text, part, '/');) {
    if (part == "." || part == "..") {
      corrupt("a control group named " + path);
    }
    if (!part.empty()) {
      parts.push_back(part);
    }
  }
  return parts;
}

std::string clean(const std::string& path) {
  std::string result;
  for (const auto& part : parts_of(path)) {
    result += (result.empty() ? "" : "/") + part;
  }
  return result;
}

bool is_at_or_below(const std::string& path, const std::string& top) {
  return top.empty() || path == top || (path.starts_with(top) && path[top.size()] == '/');
}

template <typename Names>
std::string joined(const Names& names) {
  std::string all;
  for (const auto& name : names) {
    all += (all.empty() ? "" : ",") + name;
  }
  return all;
}

std::set<std::string> names_in(const std::string& controllers) {
  const auto names = kernel::split_controllers(controllers);
  return {names.begin(), names.end()};
}

std::string what_of(const std::pair<std::string, std::string>& place) {
  return fmt::format("control group {}:/{}", place.first, place.second);
}

}  // namespace

bool RestoredCgroups::Set::hides() const {
  return std::any_of(namespace_roots.begin(), namespace_roots.end(),
                     [](const auto& root) { return root.second != ""; });
}

// Of a task that is no more, of one whose image does not say, and of whom no task stands above: as who makes it.
std::uint32_t RestoredCgroups::set_of(const TaskImage* task) const {
  for (; task != nullptr; task = task->parent) {
    if (!task->alive()) {
      continue;
    }
    if (task->core.thread_core().has_cg_set()) {
      return task->core.thread_core().cg_set();
    }
    if (task->core.tc().has_cg_set()) {
      return task->core.tc().cg_set();
    }
  }
  return own_set();
}

std::uint32_t RestoredCgroups::set_of_thread(const TaskImage& task, int thread) const {
  const auto& core = task.threads[thread].thread_core();
  return core.has_cg_set() ? core.cg_set() : set_of(&task);
}

void RestoredCgroups::make() {
  const auto& options = context_.options;
  if (options.manage_cgroups == CgroupMode::ignore || options.unprivileged) {
    return;
  }
  auto reader = context_.images.open(image::type::cgroup);
  if (!reader) {
    return;
  }
  images::cgroup_entry image;
  reader->only(image);
  if (!options.cgroup_yard.empty()) {
    yard_ = base::Fd(check(::open(options.cgroup_yard.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC),
                           "open the directory of --cgroup-yard", options.cgroup_yard));
  }
  open_hierarchies(image);
  read_sets(image);
  if (!any()) {
    return;
  }
  for (const auto& controller : image.controllers()) {
    if (hierarchies_.contains(joined(controller.cnames()))) {
      make_tops(image, controller);
    }
  }
  for (const auto& [id, set] : sets_) {
    for (const auto& [hierarchy, path] : set.paths) {
      open_entrance(processes_, {hierarchy, path}, "cgroup.procs");
    }
    for (const auto& [hierarchy, path] : set.namespace_roots) {
      open_entrance(processes_, {hierarchy, path}, "cgroup.procs");
    }
  }
  for (const auto& task : context_.checkpoint.tasks) {
    for (int i = 0; i < task->threads.size(); ++i) {
      const auto set = set_of_thread(*task, i);
      if (set == set_of(task.get())) {
        continue;
      }
      for (const auto& [hierarchy, path] : sets_.at(set).paths) {
        open_entrance(threads_, {hierarchy, path}, hierarchy.empty() ? "cgroup.threads" : "tasks");
      }
    }
  }
}

// Which ones there are on this machine, whatever they were called on the other.
void RestoredCgroups::open_hierarchies(const images::cgroup_entry& image) {
  const auto here = kernel::parse_memberships(procfs::Task(::getpid()).read("cgroup"));
  const auto only_root = [&](const std::string& name) {
    return std::all_of(image.sets().begin(), image.sets().end(), [&](const images::cg_set_entry& set) {
      return std::all_of(set.ctls().begin(), set.ctls().end(), [&](const images::cg_member_entry& member) {
        return member.name() != name || clean(member.path()).empty();
      });
    });
  };
  for (const auto& controller : image.controllers()) {
    const auto name = joined(controller.cnames());
    const auto found = std::find_if(here.begin(), here.end(), [&](const kernel::Membership& group) {
      return names_in(group.controllers) == names_in(name);
    });
    if (found == here.end() && only_root(name)) {
      LOG_WARN("there are no control groups of {} here; the tree was in none of them but the root", name);
      continue;
    }
    if (found == here.end()) {
      throw Error("cannot restore", name.empty() ? "control groups of version 2" : "control groups of " + name, 0,
                  "this machine has no such hierarchy; --manage-cgroups=ignore leaves the tree where this program is");
    }
    auto root = kernel::open_hierarchy(found->controllers, yard_ ? yard_.get() : -1);
    hierarchies_[name] = {name, context_.internal(std::move(root))};
  }
}

void RestoredCgroups::read_sets(const images::cgroup_entry& image) {
  std::set<std::uint32_t> used;
  for (const auto& task : context_.checkpoint.tasks) {
    used.insert(set_of(task.get()));
    for (int i = 0; i < task->threads.size(); ++i) {
      used.insert(set_of_thread(*task, i));
    }
  }
  used.erase(own_set());
  for (const auto& entry : image.sets()) {
    if (!used.contains(entry.id())) {
      continue;
    }
    auto& set = sets_[entry.id()];
    for (const auto& member : entry.ctls()) {
      const auto controller = std::find_if(image.controllers().begin(), image.controllers().end(),
                                           [&](const auto& it) { return joined(it.cnames()) == member.name(); });
      if (controller == image.controllers().end()) {
        throw Error("cannot restore", fmt::format("control groups of {}", member.name()), 0,
                    "the images do not say what they were like; --manage-cgroups=ignore leaves the tree where this "
                    "program is");
      }
      if (!hierarchies_.contains(member.name())) {
        continue;
      }
      if (member.cgns_prefix() > member.path().size()) {
        corrupt("a namespace that hides more than there is");
      }
      const auto hidden = member.path().substr(0, member.cgns_prefix());
      set.paths[member.name()] = moved(*controller, member.path(), hidden);
      set.namespace_roots[member.name()] = hidden.empty() ? "" : moved(*controller, hidden, hidden);
    }
    if (set.hides() && set.namespace_roots != sets_[set_of(&context_.checkpoint.root())].namespace_roots) {
      throw Error("cannot restore", "tasks in several control group namespaces", 0,
                  "this version makes one for the whole tree");
    }
  }
  for (const auto id : used) {
    if (!sets_.contains(id)) {
      corrupt(fmt::format("there is no set {}, which a task was in", id));
    }
  }
  if (any()) {
    read_own_set();
  }
}

// Where this process is and those stay of whom nothing else is said.
void RestoredCgroups::read_own_set() {
  auto& own = sets_[own_set()];
  for (const auto& group : kernel::parse_memberships(procfs::Task(::getpid()).read("cgroup"))) {
    for (const auto& [name, hierarchy] : hierarchies_) {
      if (names_in(name) == names_in(group.controllers)) {
        own.paths[name] = clean(group.path);
      }
    }
  }
}

// --cgroup-root puts another path in the place of what is hidden, or else of the recorded top.
std::string RestoredCgroups::moved(const images::cg_controller_entry& controller, const std::string& path,
                                   const std::string& hidden) const {
  const auto* root = cgroup_root_for(context_.options, joined(controller.cnames()));
  auto whole = clean(path);
  if (root == nullptr) {
    return whole;
  }
  std::string replaced = clean(hidden);
  if (replaced.empty()) {
    bool any = false;
    for (const auto& dir : controller.dirs()) {
      const auto top = clean(dir.dir_name());
      if (is_at_or_below(whole, top) && (!any || top.size() > replaced.size())) {
        replaced = top;
        any = true;
      }
    }
  }
  return is_at_or_below(whole, replaced) ? clean(*root + "/" + whole.substr(replaced.size())) : clean(*root);
}

void RestoredCgroups::make_tops(const images::cgroup_entry& image, const images::cg_controller_entry& controller) {
  const auto name = joined(controller.cnames());
  for (const auto& dir : controller.dirs()) {
    const auto top = clean(dir.dir_name());
    bool needed = false;
    std::string hidden;
    for (const auto& set : image.sets()) {
      for (const auto& member : set.ctls()) {
        if (member.name() == name && sets_.contains(set.id()) && set.id() != own_set() &&
            is_at_or_below(clean(member.path()), top)) {
          needed = true;
          hidden = member.path().substr(0, member.cgns_prefix());
        }
      }
    }
    if (needed) {
      make_group({name, moved(controller, dir.dir_name(), is_at_or_below(top, clean(hidden)) ? hidden : "")}, dir);
    }
  }
}

void RestoredCgroups::make_group(const Place& place, const images::cgroup_dir_entry& dir) {
  bool fresh = false;
  open_or_make(place, dir, fresh);
  // The root of a hierarchy and where this program is are there anyway.
  const bool always = place.second.empty() || sets_.at(own_set()).paths[place.first] == place.second;
  if (context_.options.manage_cgroups == CgroupMode::strict && !fresh && !always) {
    throw Error("Abort restore of existing cgroups", what_of(place), 0,
                "--manage-cgroups=soft uses what is there, full gives it the saved properties");
  }
  if (fresh && dir.device_programs()) {
    throw Error("cannot restore", what_of(place), 0,
                "its device rules were programs, which no image holds: whoever sets them has to make the group before, "
                "as container engines do");
  }
  set_up(place, dir, fresh);
  for (const auto& child : dir.children()) {
    make_group({place.first, clean(place.second + "/" + child.dir_name())}, child);
  }
}

const base::Fd& RestoredCgroups::open_or_make(const Place& place, const images::cgroup_dir_entry& dir, bool& fresh) {
  auto& result = groups_[place];
  auto at = kernel::try_open_group(hierarchies_.at(place.first).root.get(), "");
  Place here{place.first, ""};
  for (const auto& part : parts_of(place.second)) {
    here.second += (here.second.empty() ? "" : "/") + part;
    auto next = kernel::try_open_group(at.get(), part);
    if (!next && errno == ENOENT) {
      const auto mode = context_.options.manage_cgroups;
      if (mode == CgroupMode::none || mode == CgroupMode::props) {
        throw Error(fmt::format("Cgroup dir {} doesn't exist", what_of(place)), {}, 0,
                    "--manage-cgroups=soft makes what is missing");
      }
      if (fresh && place.first.empty()) {
        enable_controllers_for(at.get(), dir);
      }
      next = make_directory(here, at.get(), part);
      fresh = true;
    }
    check(next.get(), "open", what_of(here));
    at = std::move(next);
  }
  result = context_.internal(std::move(at));
  return result;
}

base::Fd RestoredCgroups::make_directory(const Place& place, int above, const std::string& name) {
  if (remover_ == nullptr) {
    remover_ = std::make_unique<CgroupRemover>(context_, [this](const Place& made) { remove(made); });
  }
  remover_->note(place);
  if (::mkdirat(above, name.c_str(), 0755) != 0) {
    const int error = errno;
    remover_->forget_last();
    throw Error("make", what_of(place), error);
  }
  auto made = kernel::try_open_group(above, name);
  check(made.get(), "open", what_of(place));
  if (names_in(place.first).contains("cpuset")) {
    inherit_cpuset(made.get(), above);
  }
  return made;
}

// The root of a hierarchy is not the tree's to change.
void RestoredCgroups::set_up(const Place& place, const images::cgroup_dir_entry& dir, bool fresh) {
  const auto mode = context_.options.manage_cgroups;
  if (place.second.empty() || mode == CgroupMode::none) {
    return;
  }
  const int group = groups_.at(place).get();
  if (dir.has_dir_perms()) {
    set_directory_owner(group, what_of(place), dir.dir_perms());
  }
  if (!fresh && mode != CgroupMode::props && mode != CgroupMode::full) {
    return;
  }
  // A type goes before what depends on it.
  for (const bool type : {true, false}) {
    for (const auto& property : dir.properties()) {
      if (type != (property.name() == "cgroup.type")) {
        continue;
      }
      if (is_early_property(property.name())) {
        set_property(group, what_of(place), property);
      } else {
        late_.push_back({place, property});
      }
    }
  }
}

void RestoredCgroups::open_entrance(std::map<Place, base::Fd>& entrances, const Place& place, const char* file) {
  if (entrances.contains(place)) {
    return;
  }
  if (!groups_.contains(place)) {
    bool fresh = false;
    open_or_make(place, {}, fresh);
  }
  base::Fd entrance(check(::openat(groups_.at(place).get(), file, O_WRONLY | O_CLOEXEC), "open",
                          fmt::format("{} of {}", file, what_of(place))));
  entrances[place] = context_.internal(std::move(entrance));
}

void RestoredCgroups::write_to(const std::map<Place, base::Fd>& entrances, std::uint32_t from, std::uint32_t to,
                               pid_t who, const std::string& name) const {
  const auto& before = sets_.at(from).paths;
  const auto text = std::to_string(who);
  for (const auto& [hierarchy, path] : sets_.at(to).paths) {
    const auto at = before.find(hierarchy);
    if (at != before.end() && at->second == path) {
      continue;
    }
    if (::write(entrances.at({hierarchy, path}).get(), text.data(), text.size()) < 0) {
      const int error = errno;
      throw Error("move", fmt::format("{} into {}", name, what_of({hierarchy, path})), error,
                  error == EBUSY ? "groups below it use controllers, and it is no place for tasks then" : "");
    }
  }
}

void RestoredCgroups::enter(const TaskImage& task, const TaskImage* maker) const {
  if (!any() || !task.alive()) {
    return;
  }
  const auto from = set_of(maker), to = set_of(&task);
  if (from != to) {
    write_to(processes_, from, to, 0, task.name());
  }
}

void RestoredCgroups::place_threads() const {
  if (threads_.empty()) {
    return;
  }
  for (const auto& task : context_.checkpoint.tasks) {
    for (int i = 0; i < task->threads.size(); ++i) {
      const auto from = set_of(task.get()), to = set_of_thread(*task, i);
      if (from != to) {
        const auto tid = static_cast<pid_t>(task->entry.threads(i + 1));
        write_to(threads_, from, to, tid, fmt::format("thread {} of {}", tid, task->name()));
      }
    }
  }
}

// One limit may stand in the way of another, whose turn comes later: what is refused gets a second try.
void RestoredCgroups::set_properties() const {
  std::vector<const Late*> refused;
  for (const auto& late : late_) {
    if (is_freezing_property(late.property.name())) {
      continue;
    }
    try {
      set_property(groups_.at(late.group).get(), what_of(late.group), late.property);
    } catch (const Error& error) {
      LOG_DEBUG("once more later: {}", error.what());
      refused.push_back(&late);
    }
  }
  for (const auto* late : refused) {
    set_property(groups_.at(late->group).get(), what_of(late->group), late->property);
  }
}

void RestoredCgroups::freeze() const {
  for (const auto& late : late_) {
    const auto& value = late.property.value();
    if (is_freezing_property(late.property.name()) && (value == "1" || value == "FROZEN")) {
      set_property(groups_.at(late.group).get(), what_of(late.group), late.property);
    }
  }
}

// A namespace begins where its maker is, which is not where this process is to go.
base::Fd RestoredCgroups::make_namespace() const {
  if (!any()) {
    return {};
  }
  const auto& roots = sets_.at(set_of(&context_.checkpoint.root())).namespace_roots;
  if (!sets_.at(set_of(&context_.checkpoint.root())).hides()) {
    return {};
  }
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC), "make a pipe");
  base::Fd there(ends[0]), here(ends[1]);
  const auto maker = check(::fork(), "make a process");
  if (maker == 0) {
    there.reset();
    int error = 0;
    for (const auto& [hierarchy, path] : roots) {
      if (error == 0 && ::write(processes_.at({hierarchy, path}).get(), "0", 1) < 0) {
        error = errno;
      }
    }
    if (error == 0 && context_.users->own() && ::setns(context_.users->ns(), CLONE_NEWUSER) != 0) {
      error = errno;
    }
    if (error == 0 && ::unshare(CLONE_NEWCGROUP) != 0) {
      error = errno;
    }
    static_cast<void>(!::write(here.get(), &error, sizeof error));
    for (;;) {
      ::pause();
    }
  }
  here.reset();
  struct End {
    pid_t pid;
    ~End() {
      ::kill(pid, SIGKILL);
      task::reap(pid);
    }
  } const end{maker};
  int error = ECHILD;
  if (::read(there.get(), &error, sizeof error) != static_cast<ssize_t>(sizeof error) || error != 0) {
    throw Error("make the control group namespace", {}, error);
  }
  return procfs::Task(maker).open("ns/cgroup", O_RDONLY);
}

namespace {

// Who has been killed is in its group until its end, which comes by itself.
void await_members(int group) {
  std::istringstream members(kernel::read_property(group, "cgroup.procs").value_or(""));
  for (pid_t pid = 0; members >> pid;) {
    const base::Fd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    pollfd end{process.get(), POLLIN, 0};
    constexpr int long_enough = 5000;
    ::poll(&end, process ? 1 : 0, process ? long_enough : 0);
  }
}

}  // namespace

void RestoredCgroups::remove(const Place& place) const {
  const int root = hierarchies_.at(place.first).root.get();
  constexpr int tries = 10;
  for (int i = 0; i < tries && ::unlinkat(root, place.second.c_str(), AT_REMOVEDIR) != 0; ++i) {
    if (errno == ENOENT) {
      return;  // killed between the word of it and the deed
    }
    if (errno != EBUSY || i + 1 == tries) {
      LOG_ERROR("cannot remove {}: {}", what_of(place), std::strerror(errno));
      return;
    }
    if (const auto group = kernel::try_open_group(root, place.second)) {
      await_members(group.get());
    }
  }
}

void RestoredCgroups::keep() {
  if (remover_ != nullptr) {
    remover_->keep();
  }
}

RestoredCgroups::~RestoredCgroups() = default;

}  // namespace criu::namespaces
