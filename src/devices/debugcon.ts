// The debug console of Bochs and QEMU: bytes written to port 0xe9 come out; a read gives the port's number, by which a guest finds it.

import type { IoSpace } from "../vmm/bus.ts";

export interface DebugConOptions {
  readonly io: IoSpace;
  readonly port?: number;
  onOutput(byte: number): void;
}

const DEFAULT_PORT = 0xe9;
const PRESENT = 0xe9;

/** Has no state. */
export class DebugCon {
  constructor(options: DebugConOptions) {
    options.io.mapPorts("debugcon", options.port ?? DEFAULT_PORT, 1, {
      readPort: () => PRESENT,
      writePort: (_port, _size, value) => options.onOutput(value & 0xff),
    });
  }
}
