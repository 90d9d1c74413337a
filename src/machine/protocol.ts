// What passes between a machine's thread and the program that owns it. Towards the machine: messages in its mailbox (src/host/mailbox.ts).
// From it: structured messages, by whatever the platform has for that.

import type { SkepErrorCode } from "../errors.ts";
import type { ControlAnswer, ControlRequest } from "./control.ts";
import type { Snapshot } from "./snapshot.ts";
import type { MachineStatistics } from "./statistics.ts";

/** Byte streams of a machine: serial ports by position, the virtio console, the lines of traces. */
export const CHANNEL = { SERIAL: 0, CONSOLE: 4, TRACE: 5, COUNT: 6 } as const;

/** Kinds of messages to the machine. A command is JSON; input is a byte with the channel, then what was typed. */
export const MESSAGE = { COMMAND: 0, INPUT: 1 } as const;

export const COMMANDS = [
  "start",
  "pause",
  "resume",
  "reset",
  "power-button",
  "statistics",
  "control",
  "snapshot",
  "stop",
] as const;
export type Command = (typeof COMMANDS)[number];

/** A command and the number that its reply bears. */
export interface CommandMessage {
  readonly command: Command;
  readonly id: number;
  /** What the command `control` asks. */
  readonly request?: ControlRequest;
}

/** How a machine ended, for the program. */
export interface ExitRecord {
  readonly reason: "reboot" | "power-off" | "halt" | "triple-fault" | "debug-exit" | "stopped" | "error";
  /** The command's exit status for it. */
  readonly status: number;
  /** Where the reason is `error`: one line that says more. */
  readonly message?: string;
}

/** What the thread of a vCPU is given. All of it is shared with the machine's other threads. */
export interface VcpuThreadParts {
  readonly id: number;
  /** Virtual time of the latest RESET, from which the vCPU's TSC counts. */
  readonly resetAt: number;
  readonly control: SharedArrayBuffer;
  readonly mailbox: SharedArrayBuffer;
  readonly ram: WebAssembly.Memory;
  /** Each vCPU's own memory. */
  readonly memories: readonly WebAssembly.Memory[];
  readonly engineModule: WebAssembly.Module;
}

/** What a machine's thread asks of whoever started it, and its owner does not see. */
export interface SpawnMessage {
  readonly type: "spawn";
  readonly parts: VcpuThreadParts;
}

export type FromMachine =
  | { readonly type: "ready" }
  /** The machine could not be made. */
  | { readonly type: "failed"; readonly code: SkepErrorCode; readonly message: string }
  | { readonly type: "output"; readonly channel: number; readonly bytes: Uint8Array<ArrayBuffer> }
  /** So much of a channel's input has been handed to the device. */
  | { readonly type: "taken"; readonly channel: number; readonly bytes: number }
  | {
      readonly type: "reply";
      readonly id: number;
      readonly statistics?: MachineStatistics;
      readonly answer?: ControlAnswer;
      readonly snapshot?: Snapshot;
    }
  | { readonly type: "refused"; readonly id: number; readonly code: SkepErrorCode; readonly message: string }
  | { readonly type: "exit"; readonly exit: ExitRecord; readonly statistics: MachineStatistics };
