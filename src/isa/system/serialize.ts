// Instructions that serialise (SDM Vol. 3A 9.3): what they and all before them wrote is seen by everybody, and the instructions behind them are
// fetched anew. The end of the block is where a vCPU notices what others have posted to it (docs/architecture.md, "Between vCPUs").

import type { Sem } from "../semantics.ts";

export function serialize(x: Sem): void {
  x.c.atomicFence();
  x.endBlock();
}
