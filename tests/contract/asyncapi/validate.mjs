// Reads an AsyncAPI document as others will, with @asyncapi/parser, and says what that thinks of it.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const text = await readFile(process.argv[2], "utf8");
const { document, diagnostics } = await new Parser().parse(text);
console.log(
  JSON.stringify({
    messages: document?.allMessages().all().map((message) => message.name()) ?? null,
    operations: document?.allOperations().all().map((operation) => operation.id()) ?? null,
    diagnostics: diagnostics.map(({ severity, code, message, path }) => ({
      severity,
      code,
      message,
      path: path.join("."),
    })),
  }),
);
