// The command `skep`: which subcommand, and how anything that goes wrong is told: one line on standard error, exit status 4.

import { readFileSync } from "node:fs";
import { SkepError } from "../errors.ts";
import { runCtl } from "./ctl.ts";
import { optionsHelp, parseOptions } from "./options.ts";
import { runMachine } from "./run.ts";
import { debianMachine } from "./start.ts";
import { ESCAPE_HELP } from "./terminal.ts";

const FAILED = 4;

const HELP = `skep boots operating systems on an x86-64 CPU of its own.

  skep run --kernel FILE [option ...]    run a machine
  skep start [option ...]                boot Debian's Linux to a shell
  skep run --help, skep start --help     their options
  skep ctl NAME COMMAND ...              ask a running machine; skep ctl --help
  skep --version
`;

const STATUS_HELP = `Exit status: 0 the guest rebooted, 1 powered off, 2 halted, 3 triple fault, 4 error or stopped from outside;
(value << 1) | 1 where the guest wrote a value to the debug exit port.
`;

function commandHelp(command: "run" | "start"): string {
  const usage =
    command === "run"
      ? "skep run --kernel FILE [option ...]: runs a machine."
      : "skep start [option ...]: boots Debian's Linux to a shell, from packages that are fetched once.";
  const escapes = ESCAPE_HELP.map((line) => `  ${line}`).join("\n");
  return `${usage}\n\n${optionsHelp(command)}\n\nIn a terminal:\n${escapes}\n\n${STATUS_HELP}`;
}

function version(): string {
  const text = readFileSync(new URL("../../package.json", import.meta.url), "utf8");
  return (JSON.parse(text) as { version: string }).version;
}

async function main(args: readonly string[]): Promise<number> {
  const [command, ...rest] = args;
  switch (command) {
    case undefined:
    case "help":
    case "--help":
    case "-h":
      process.stdout.write(HELP);
      return command === undefined ? FAILED : 0;
    case "--version":
    case "version":
      process.stdout.write(`skep ${version()}\n`);
      return 0;
    case "run":
    case "start": {
      const options = parseOptions(command, rest);
      if (options.help) {
        process.stdout.write(commandHelp(command));
        return 0;
      }
      if (command === "start") return runMachine(await debianMachine(options), options);
      const { kernel } = options.machine;
      if (kernel === undefined) throw new SkepError("config", "a kernel is needed: skep run --kernel FILE");
      return runMachine({ ...options.machine, kernel }, options);
    }
    case "ctl":
      return runCtl(rest);
    default:
      throw new SkepError("config", `there is no command "${command}"; see skep --help`);
  }
}

/** Done when all that was written to the stream has gone, or cannot go. */
function written(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise((resolve) => {
    if (stream.writableLength === 0 || stream.destroyed) resolve();
    else stream.write("", () => resolve());
  });
}

let status: number;
try {
  status = await main(process.argv.slice(2));
} catch (error) {
  const known = error instanceof SkepError;
  const text = error instanceof Error ? error.message : String(error);
  process.stderr.write(`skep: ${known ? text : `internal error: ${text.split("\n")[0]}`}\n`);
  if (process.env.SKEP_DEBUG !== undefined) console.error(error);
  status = FAILED;
}
// A pipe takes only so much at once, and what is left would be lost.
await Promise.all([process.stdout, process.stderr].map(written));
// Standard input may stay open; nothing is left to wait for.
process.exit(status);
