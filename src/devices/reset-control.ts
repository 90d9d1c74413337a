// The reset control register at port 0xcf9: Intel ICH9 data sheet, 13.7.5. The port lies among those of the PCI configuration mechanism, so
// the host bridge passes byte accesses on (`PciHostOptions.port0cf9`).

import type { PortHandler } from "../vmm/bus.ts";
import type { Schema, Stateful } from "../vmm/state.ts";

const RST_CNT = { SYS_RST: 1 << 1, RST_CPU: 1 << 2, FULL_RST: 1 << 3 } as const;

const SCHEMA: Schema = { kind: "reset-control", version: 1, fields: { value: "u8" }, derived: [] };

export class ResetControl implements Stateful, PortHandler {
  readonly schema = SCHEMA;
  value = 0;
  private readonly onReset: (hard: boolean) => void;

  constructor(options: { onReset(hard: boolean): void }) {
    this.onReset = (hard) => options.onReset(hard);
  }

  readPort(): number {
    return this.value;
  }

  /** RST_CPU going from 0 to 1 resets: all of the platform with SYS_RST, else the processors. */
  writePort(_port: number, _size: number, value: number): void {
    const rising = value & ~this.value & RST_CNT.RST_CPU;
    this.value = value & (RST_CNT.SYS_RST | RST_CNT.RST_CPU | RST_CNT.FULL_RST);
    if (rising !== 0) this.onReset((value & RST_CNT.SYS_RST) !== 0);
  }

  reset(): void {
    this.value = 0;
  }
}
