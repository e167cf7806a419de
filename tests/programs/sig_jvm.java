// Works on a job; finishes it on SIGTERM only when started with the word `hook`.
class Job {
    public static void main(String[] words) throws InterruptedException {
        if (words.length > 0 && words[0].equals("hook")) {
            Runtime.getRuntime().addShutdownHook(new Thread(() -> say("job done")));
        }
        say("ready (pid: " + ProcessHandle.current().pid() + ")");
        Thread.sleep(3600 * 1000);
        say("job done");
    }

    static void say(String line) {
        System.out.println(line);
        System.out.flush();
    }
}
