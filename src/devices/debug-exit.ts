// A port through which a test kernel ends the machine with a status of its own, as QEMU's `isa-debug-exit`:
// the value v written gives the exit status (v << 1) | 1, which is never 0.

import type { AccessSize, IoSpace } from "../vmm/bus.ts";

export interface DebugExitOptions {
  readonly io: IoSpace;
  readonly port?: number;
  readonly size?: number;
  /** Ends the machine with this status. */
  onExit(status: number): void;
}

const DEFAULT_PORT = 0xf4;
const DEFAULT_SIZE = 4;

/** Has no state. */
export class DebugExit {
  constructor(options: DebugExitOptions) {
    options.io.mapPorts("debug-exit", options.port ?? DEFAULT_PORT, options.size ?? DEFAULT_SIZE, {
      readPort: () => 0,
      writePort: (_port: number, _size: AccessSize, value: number) => options.onExit(((value << 1) | 1) >>> 0),
    });
  }
}
