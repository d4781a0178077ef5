// Calls an API of the iTwin Platform again and again. It reads the token for every call, because the file changes
// before the token expires. With Java 17 or later: java Client.java
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

class Client {
    // without redirects, which would take the token to another server
    private static final HttpClient HTTP = HttpClient.newHttpClient();
    private static final Path FILE = Path.of(setting("ITWIN_ACCESS_TOKEN_FILE", "/var/run/secrets/itwin/access_token"));
    private static final URI API = URI.create(setting("ITWIN_URL", "https://api.bentley.com/itwins/"));
    private static final double SECONDS = Double.parseDouble(setting("INTERVAL_SECONDS", "60"));

    private static String setting(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }

    private static String call() throws Exception {
        var request = HttpRequest.newBuilder(API).header("Accept", "application/vnd.bentley.itwin-platform.v1+json")
                .header("Authorization", "Bearer " + Files.readString(FILE).strip()).build();
        var answer = HTTP.sendAsync(request, BodyHandlers.ofString());
        try {
            // with the body, which the timeout of a request leaves out
            var response = answer.get(30, TimeUnit.SECONDS);
            if (response.statusCode() != 200) throw new IOException("status " + response.statusCode());
            return response.body();
        } finally {
            answer.cancel(true);
        }
    }

    public static void main(String[] arguments) throws InterruptedException {
        while (true) {
            try {
                call();
            } catch (IllegalArgumentException error) {
                // its message may hold the token
                System.err.println("The call failed: the file holds no token.");
            } catch (Exception error) {
                System.err.println("The call failed: " + error);
            }
            Thread.sleep((long) (SECONDS * 1000));
        }
    }
}
