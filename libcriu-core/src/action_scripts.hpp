// SPDX-License-Identifier: LGPL-2.1-only
// Programs of the user that run at stages of a dump or restore.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "base/error.hpp"
#include "options.hpp"

namespace criu {

enum class Event {
  pre_stream,
  pre_dump,
  network_lock,
  post_dump,
  pre_restore,
  setup_namespaces,
  post_setup_namespaces,
  post_restore,
  network_unlock,
  pre_resume,
  post_resume,
  status_ready,
};

// A script said no to an event that it may veto.
class ScriptFailed : public base::Error {
 public:
  ScriptFailed(Event event, std::string operation, std::string object)
      : base::Error(std::move(operation), std::move(object), 0), event_(event) {}
  Event event() const { return event_; }

 private:
  Event event_;
};

struct ScriptContext {
  int images_fd = -1;  // the open image directory; scripts see it as a path under /proc
  pid_t root = 0;      // the root task as this process sees it; 0: there is none yet
};

// Who wants to hear of events as well, and may veto them like a script.
class EventListener {
 public:
  EventListener() = default;
  EventListener(const EventListener&) = delete;
  EventListener& operator=(const EventListener&) = delete;
  virtual ~EventListener() = default;
  // Throws base::Error for a veto.
  virtual void tell(Event, const ScriptContext&) = 0;
  // What is external beside what the options say, once the tree is frozen.
  virtual std::vector<std::string> external() = 0;
  // Whether it takes the master of a restored pty whose master was outside of the tree. This process keeps its own.
  virtual bool take_terminal(int master) = 0;
};

// Tells the listener, then runs all scripts, the last one given first, each to its end whatever became of the others.
// Throws ScriptFailed if one failed and the event can be vetoed; unlocking and what comes with the resumed tree cannot,
// that is logged alone.
void run_scripts(const Options& options, Event event, const ScriptContext& context);

const char* event_name(Event event);

}  // namespace criu
