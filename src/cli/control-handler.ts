// What a running machine's control socket answers: the methods of VirtualMachine, by name.

import { SkepError } from "../errors.ts";
import type { VirtualMachine } from "../index.ts";
import type { ControlRequest } from "../machine/control.ts";

/** One line of the socket. */
export type CtlRequest =
  | { readonly command: (typeof PLAIN_COMMANDS)[number] }
  | { readonly command: "control"; readonly request: ControlRequest };

export const PLAIN_COMMANDS = ["pause", "resume", "reset", "power-button", "stats", "stop"] as const;

const PLAIN: { readonly [command in (typeof PLAIN_COMMANDS)[number]]: (vm: VirtualMachine) => Promise<unknown> } = {
  pause: (vm) => vm.pause(),
  resume: (vm) => vm.resume(),
  reset: (vm) => vm.reset(),
  "power-button": (vm) => vm.pressPowerButton(),
  stats: (vm) => vm.statistics(),
  // The answer comes before the end, which closes the socket.
  stop: async (vm) => {
    setImmediate(() => void vm.stop());
  },
};

/** Answers a request that may be anything. */
export async function handleControl(vm: VirtualMachine, request: unknown): Promise<unknown> {
  const { command, request: inner } = (request ?? {}) as { command?: unknown; request?: ControlRequest };
  if (command === "control" && typeof inner === "object") return vm.control(inner);
  if (typeof command === "string" && Object.hasOwn(PLAIN, command)) return PLAIN[command as keyof typeof PLAIN](vm);
  throw new SkepError("config", `there is no control command ${JSON.stringify(command)}`);
}
