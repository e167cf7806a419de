// Works on a job; finishes it on SIGTERM only when started with the word `handler`.
const job = setTimeout(() => console.log("job done"), 3600 * 1000);
if (process.argv[2] === "handler") {
  process.on("SIGTERM", () => {
    clearTimeout(job);
    console.log("job done");
  });
}
console.log(`ready (pid: ${process.pid})`);
