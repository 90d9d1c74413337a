// The user's terminal while a guest has it: raw mode, with Ctrl-a as the escape key (as QEMU's), and given back on every way out.

/** What follows the escape key. */
const ESCAPE = 0x01;
const KEYS = { quit: "x", help: "h", helpToo: "?", literal: "a" } as const;

export const ESCAPE_HELP = [
  "Ctrl-a h    print this help",
  "Ctrl-a x    end the machine",
  "Ctrl-a a    send Ctrl-a to the guest (Ctrl-a Ctrl-a does so too)",
] as const;

export interface Typed {
  /** For the guest. */
  readonly bytes: Uint8Array;
  readonly quit: boolean;
  readonly help: boolean;
}

/** Takes the escape key and what follows it out of what is typed. */
export class EscapeFilter {
  private escaped = false;

  take(typed: Uint8Array): Typed {
    const bytes: number[] = [];
    let quit = false;
    let help = false;
    for (const byte of typed) {
      if (!this.escaped) {
        if (byte === ESCAPE) this.escaped = true;
        else bytes.push(byte);
        continue;
      }
      this.escaped = false;
      const key = String.fromCharCode(byte).toLowerCase();
      if (key === KEYS.quit) quit = true;
      else if (key === KEYS.help || key === KEYS.helpToo) help = true;
      else if (key === KEYS.literal || byte === ESCAPE) bytes.push(ESCAPE);
    }
    return { bytes: Uint8Array.from(bytes), quit, help };
  }
}

export interface TerminalInput {
  readonly isTTY?: boolean;
  setRawMode?(raw: boolean): unknown;
}

/** Puts a terminal into raw mode; gives what puts it back, which also happens when the process exits in any other way. */
export function rawMode(input: TerminalInput): () => void {
  if (input.isTTY !== true || input.setRawMode === undefined) return () => {};
  let raw = true;
  input.setRawMode(true);
  const restore = (): void => {
    if (!raw) return;
    raw = false;
    process.removeListener("exit", restore);
    input.setRawMode?.(false);
  };
  process.on("exit", restore);
  return restore;
}
