// SPDX-License-Identifier: LGPL-2.1-only
// libnftables, loaded when it is first needed: most dumps never do.
#pragma once

#include <string>

struct nft_ctx;

namespace criu::sockets {

class Nft {
 public:
  // How lists come: without what is in sets, or with all.
  enum class Output { terse, whole };
  // An Error when the library is not there.
  explicit Nft(Output = Output::terse);
  ~Nft();
  Nft(const Nft&) = delete;
  Nft& operator=(const Nft&) = delete;

  // Runs commands as one transaction and returns what they print. An Error has the library's words.
  std::string run(const std::string& commands, const char* what);

 private:
  nft_ctx* context_ = nullptr;
};

}  // namespace criu::sockets
