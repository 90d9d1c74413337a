// Memory-mapped configuration space description: PCI Firmware Specification 3.3, 4.1.2.

import type { ResolvedConfig } from "./config.ts";
import { finishTable, startTable } from "./sdt.ts";

export function buildMcfg(config: ResolvedConfig): Uint8Array {
  const t = startTable("MCFG", 1).zeros(8);
  t.u64(config.ecamBase)
    .u16(0)
    .u8(0, config.ecamBuses - 1)
    .u32(0);
  return finishTable(t);
}
