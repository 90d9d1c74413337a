// HPET description table: IA-PC HPET specification 1.0a, 3.2.4.

import type { ResolvedConfig } from "./config.ts";
import { ACCESS, ADDRESS_SPACE, finishTable, genericAddress, startTable } from "./sdt.ts";

/** Smallest number of counter ticks between two interrupts in periodic mode that loses none. */
const MINIMUM_TICK = 0x80;

export function buildHpetTable(config: ResolvedConfig): Uint8Array {
  const t = startTable("HPET", 1).u32(config.hpetId);
  genericAddress(t, ADDRESS_SPACE.systemMemory, 64, ACCESS.undefined, config.hpetBase);
  return finishTable(t.u8(0).u16(MINIMUM_TICK).u8(0));
}
