// SPDX-License-Identifier: LGPL-2.1-only
#include "sockets/nft.hpp"

#include <dlfcn.h>
#include <nftables/libnftables.h>

#include <string_view>

#include "base/error.hpp"

namespace criu::sockets {

using base::Error;

namespace {

// The few calls that are needed. The library stays loaded.
struct Library {
  decltype(&::nft_ctx_new) make = nullptr;
  decltype(&::nft_ctx_free) free = nullptr;
  decltype(&::nft_ctx_buffer_output) keep_output = nullptr;
  decltype(&::nft_ctx_buffer_error) keep_error = nullptr;
  decltype(&::nft_ctx_get_output_buffer) output = nullptr;
  decltype(&::nft_ctx_get_error_buffer) error = nullptr;
  decltype(&::nft_run_cmd_from_buffer) run = nullptr;
  decltype(&::nft_ctx_output_set_flags) set_flags = nullptr;

  Library() {
    void* handle = ::dlopen("libnftables.so.1", RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      throw Error("load libnftables", ::dlerror(), 0, "--network-lock iptables or skip does without it");
    }
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(handle, name));
      if (function == nullptr) {
        throw Error("load libnftables", name, 0);
      }
    };
    find(make, "nft_ctx_new");
    find(free, "nft_ctx_free");
    find(keep_output, "nft_ctx_buffer_output");
    find(keep_error, "nft_ctx_buffer_error");
    find(output, "nft_ctx_get_output_buffer");
    find(error, "nft_ctx_get_error_buffer");
    find(run, "nft_run_cmd_from_buffer");
    find(set_flags, "nft_ctx_output_set_flags");
  }
};

const Library& library() {
  static const Library loaded;
  return loaded;
}

}  // namespace

Nft::Nft(Output output) : context_(library().make(NFT_CTX_DEFAULT)) {
  if (context_ == nullptr || library().keep_output(context_) != 0 || library().keep_error(context_) != 0) {
    throw Error("set up nftables", {}, 0, "--network-lock iptables or skip does without it");
  }
  if (output == Output::terse) {
    library().set_flags(context_, NFT_CTX_OUTPUT_TERSE);
  }
}

Nft::~Nft() {
  if (context_ != nullptr) {
    library().free(context_);
  }
}

std::string Nft::run(const std::string& commands, const char* what) {
  if (library().run(context_, commands.c_str()) != 0) {
    std::string_view said = library().error(context_);
    throw Error(what, std::string(said.substr(0, said.find('\n'))), 0,
                "nftables is not usable here; --network-lock iptables or skip does without it");
  }
  return library().output(context_);
}

}  // namespace criu::sockets
