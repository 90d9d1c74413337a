// System control port A, 0x92: IBM PS/2 Technical Reference (fast A20 gate, fast reset); Intel ICH9 data sheet, 13.7.3.

import type { IoSpace } from "../vmm/bus.ts";
import type { Schema, Stateful } from "../vmm/state.ts";

export interface Port92Options {
  readonly io: IoSpace;
  /** This port's share in the A20 gate, which is open where any source opens it. */
  onA20(open: boolean): void;
  /** The processors are to take an INIT. */
  onInit(): void;
}

const PORT = 0x92;
const INIT_NOW = 1 << 0;
const ALT_A20_GATE = 1 << 1;

const SCHEMA: Schema = { kind: "port92", version: 1, fields: { value: "u8" }, derived: [] };

export class Port92 implements Stateful {
  readonly schema = SCHEMA;
  value = 0;
  private readonly onA20: (open: boolean) => void;

  constructor(options: Port92Options) {
    this.onA20 = (open) => options.onA20(open);
    options.io.mapPorts("port92", PORT, 1, {
      readPort: () => this.value,
      writePort: (_port, _size, value) => {
        const changed = value ^ this.value;
        this.value = value & 0xff;
        if ((changed & ALT_A20_GATE) !== 0) this.onA20((value & ALT_A20_GATE) !== 0);
        if ((changed & value & INIT_NOW) !== 0) options.onInit();
      },
    });
  }

  reset(): void {
    this.value = 0;
    this.onA20(false);
  }

  /** The gate itself belongs to the machine, which has no state of its own for it. */
  afterRestore(): void {
    this.onA20((this.value & ALT_A20_GATE) !== 0);
  }
}
