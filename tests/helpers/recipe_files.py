"""Made-up files of the kinds that `examples/recipes.md` is about: small, with the traps of the real ones."""

from __future__ import annotations

import exchange_calendars
import numpy as np
import pandas as pd

DAYS = exchange_calendars.get_calendar("XNYS", start="2020-01-01").sessions_in_range("2023-01-03", "2023-06-30")
MONTHS = pd.date_range("2017-01-31", "2020-12-31", freq="BME")
TICKERS = ("AAPL", "JPM", "MSFT")


def closes() -> pd.DataFrame:
    """Return daily closing prices, as they are written."""
    moves = np.random.default_rng(0).normal(5e-4, 0.012, (len(DAYS), len(TICKERS)))
    return pd.DataFrame(100.0 * np.exp(np.cumsum(moves, axis=0)), DAYS, list(TICKERS)).round(2)


def bars(close: pd.Series) -> pd.DataFrame:
    """Return bars around closing prices."""
    rest = {"Open": close - 0.1, "High": close + 0.5, "Low": close - 0.5, "Close": close, "Volume": 1_000_000}
    return pd.DataFrame(rest).round(2)


def returns(names: list[str]) -> pd.DataFrame:
    """Return monthly returns, as they are written."""
    moves = np.random.default_rng(1).normal(0.01, 0.05, (len(MONTHS), len(names)))
    return pd.DataFrame(moves, MONTHS, names).round(4)


def yfinance_histories() -> dict[str, str]:
    """Return what `Ticker.history` gives, a file for each ticker: its days are midnights of New York."""
    local = pd.Index([str(day) for day in DAYS.tz_localize("America/New_York")], name="Date")
    more = {"Dividends": 0.0, "Stock Splits": 0.0}
    return {
        f"prices/{ticker}.csv": bars(close).set_index(local).assign(**more).to_csv()
        for ticker, close in closes().items()
    }


def yfinance_download() -> dict[str, str]:
    """Return what `download` gives for several tickers: a header of two rows, and one that names the dates."""
    whole = pd.concat({ticker: bars(close) for ticker, close in closes().items()}, axis=1)
    whole = whole.swaplevel(axis=1).sort_index(axis=1)
    return {"download.csv": whole.rename_axis("Date").rename_axis(["Price", "Ticker"], axis=1).to_csv()}


def kaggle() -> dict[str, str]:
    """Return a folder of one file per ticker, which says its ticker in a column too."""
    return {
        f"individual_stocks/{ticker}_data.csv": bars(close)
        .rename(columns=str.lower)
        .assign(Name=ticker)
        .rename_axis("date")
        .to_csv()
        for ticker, close in closes().items()
    }


def crsp() -> dict[str, str]:
    """Return monthly stock files: letters for missing returns, negative prices, and a delisting after the last row."""
    rows = ["PERMNO,date,PRC,RET,SHROUT"]
    for permno, moves in returns(["10001", "10002", "10003"]).items():
        price = 20.0
        for month, move in moves.items():
            price *= 1.0 + move
            if permno == "10003" and month >= pd.Timestamp("2020-06-01"):
                break
            cell = {MONTHS[0]: "C", MONTHS[7]: "B" if permno == "10002" else None}.get(month) or f"{move:.4f}"
            sign = "-" if permno == "10002" and month.month == 1 else ""
            rows.append(f"{permno},{month:%Y-%m-%d},{sign}{price:.2f},{cell},{1000 + month.year}")
    return {
        "msf.csv": "\n".join(rows) + "\n",
        "msedelist.csv": "PERMNO,DLSTDT,DLRET\n10001,2020-12-31,A\n10003,2020-06-15,-0.3\n",
    }


def ken_french() -> dict[str, str]:
    """Return files of the library: text above, a table in percent, -99.99, and other tables below."""
    text = "This file was created using the 202012 CRSP database.\nMissing data are indicated by -99.99.\n"
    industries = 100 * returns(["NoDur", "Durbl", "Manuf", "Enrgy"])
    industries.iloc[0, 0] = -99.99
    factors = (100 * returns(["Mkt-RF", "SMB", "HML", "RF"])).assign(RF=0.1)

    def table(frame: pd.DataFrame, label: str) -> str:
        dates = frame.index.strftime(label)
        lines = [
            f"{date}," + ",".join(f"{value:8.2f}" for value in row)
            for date, row in zip(dates, frame.to_numpy(), strict=True)
        ]
        return "\n".join([",".join(["", *frame.columns]), *lines]) + "\n"

    yearly = [
        table(frame.groupby(frame.index.year).sum().set_axis(pd.date_range("2017", "2021", freq="YE")), "%Y")
        for frame in (industries, factors)
    ]
    monthly, annual = "  Average Value Weighted Returns -- Monthly\n", "  Average Value Weighted Returns -- Annual\n"
    return {
        "4_Industry_Portfolios.csv": f"{text}\n{monthly}{table(industries, '%Y%m')}\n\n{annual}{yearly[0]}",
        "F-F_Research_Data_Factors.csv": f"{text}\n{table(factors, '%Y%m')}\n Annual Factors: January-December\n"
        f"{yearly[1]}\nCopyright 2020 Kenneth R. French\n",
    }


def compustat() -> dict[str, str]:
    """Return monthly returns, and reports by the end of the fiscal year that they are about."""
    wide = returns(["10001", "10002", "10003"])
    months = [f"{permno},{month:%Y-%m-%d},{move}" for permno, moves in wide.items() for month, move in moves.items()]
    reports = [
        f"{permno},{year}-12-31,{100 * (place + 1) + year - 2015},{10 * (place + 1)}"
        for place, permno in enumerate(wide)
        for year in range(2016, 2020)
    ]
    return {
        "monthly.csv": "\n".join(["permno,date,ret", *months]) + "\n",
        "funda.csv": "\n".join(["permno,datadate,at,ceq", *reports]) + "\n",
    }


def anything() -> dict[str, str]:
    """Return prices by a number, and what the numbers stand for; a second share class is to be left out."""
    rows = [f"{day:%Y-%m-%d},{one},{px}" for day, row in closes().iterrows() for one, px in enumerate(row, 1)]
    names = "id,ticker,class\n1,AAPL,A\n2,JPM,A\n3,MSFT,B\n"
    return {"px.csv": "\n".join(["day,id,px", *rows]) + "\n", "names.csv": names}
