// Calls an API of the iTwin Platform again and again. It reads the token for every call, because the file changes
// before the token expires.
using System.Globalization;
using System.Net.Http.Headers;

static string Setting(string name, string otherwise) => Environment.GetEnvironmentVariable(name) ?? otherwise;

var interval = TimeSpan.FromSeconds(double.Parse(Setting("INTERVAL_SECONDS", "60"), CultureInfo.InvariantCulture));
var url = Setting("ITWIN_URL", "https://api.bentley.com/itwins/");
var tokens = new TokenFile(Setting("ITWIN_ACCESS_TOKEN_FILE", "/var/run/secrets/itwin/access_token"));
using var client = new HttpClient(tokens) { Timeout = TimeSpan.FromSeconds(30) };
client.DefaultRequestHeaders.Accept.ParseAdd("application/vnd.bentley.itwin-platform.v1+json");
while (true)
{
    try
    {
        await client.GetStringAsync(url);
    }
    catch (FormatException)
    {
        Console.Error.WriteLine("The call failed: the token is no valid header value.");
    }
    catch (Exception error) when (error is HttpRequestException or IOException or UnauthorizedAccessException
        or OperationCanceledException)
    {
        Console.Error.WriteLine($"The call failed: {error.Message}");
    }
    await Task.Delay(interval);
}

// Adds the token of a file to each request. It follows no redirects, which would take the token to another server.
class TokenFile(string file) : DelegatingHandler(new SocketsHttpHandler { AllowAutoRedirect = false })
{
    protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken end)
    {
        var token = await File.ReadAllTextAsync(file, end);
        request.Headers.Authorization = new AuthenticationHeaderValue("Bearer", token.Trim());
        return await base.SendAsync(request, end);
    }
}
