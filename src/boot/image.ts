// What a loader takes and gives. A loader is a pure function: it reads files and a description of memory, and says what to write where and
// how the first processor starts.

import type { E820Entry } from "../firmware/e820.ts";
import type { GuestWrite } from "../firmware/record.ts";
import type { InitialCpuState } from "./cpu-state.ts";
import { BootError } from "./errors.ts";

/** A file that is loaded beside the kernel, with the text that its kernel is given for it. */
export interface BootModule {
  readonly bytes: Uint8Array;
  readonly text: string;
}

export interface BootConfig {
  readonly e820: readonly E820Entry[];
  /** Guest-physical address of the RSDP; zero where there are no ACPI tables. */
  readonly rsdp: number;
  readonly commandLine: string;
  readonly initrd?: Uint8Array;
  readonly modules?: readonly BootModule[];
  /** What Multiboot kernels find before their command line; by custom the name of the kernel's file. */
  readonly kernelName?: string;
  /** Entropy for Linux's random number generator, through setup_data. */
  readonly rngSeed?: Uint8Array;
}

/** A range to be filled with zeros; only needed where memory may not be zero already. */
export interface ZeroRange {
  readonly gpa: number;
  readonly length: number;
}

export interface BootImage {
  /** Which protocol the kernel is started by. */
  readonly protocol: "linux64" | "pvh" | "multiboot";
  /** Done before the writes. */
  readonly zeros: readonly ZeroRange[];
  /** None overlaps another. Bytes may be views of the files that were given. */
  readonly writes: readonly GuestWrite[];
  readonly cpu: InitialCpuState;
}

/** Text as the NUL-terminated bytes that kernels read. */
export function cString(text: string, what: string): Uint8Array {
  if (text.includes("\0")) throw new BootError(`the ${what} contains a NUL character, which would end it; remove it`);
  return new TextEncoder().encode(`${text}\0`);
}
